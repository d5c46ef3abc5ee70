"""Worlds: a tokenizer, a world model and an agent in one folder that can be played, trained from, shipped and sent.

Imports models, evaluation's windows, runs and training's checkpoints. Knows no stage and no page.
"""
