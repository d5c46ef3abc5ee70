"""`evaluate` and `fvd`: models on held-out video and in games.

Imports data, models, games, evaluation, and the rooms before it. Changes no model.
"""
