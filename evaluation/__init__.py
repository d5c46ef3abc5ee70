"""Scores: rollouts against held-out video, agents in the real game, reports.

Imports data, models and games. Knows no training.
"""
