"""A person inside the world model: controls, recording, checklist and the page in the browser.

Imports data, models, evaluation, and the rooms before it. Changes no model.
"""
