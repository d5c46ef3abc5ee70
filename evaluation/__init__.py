"""Scores: rollouts against held-out video, agents in the real game, reports."""
