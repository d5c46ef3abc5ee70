"""Gymnasium environments of every kind: how they are made, what they draw and answer, and what reaches them.

Imports data's own files and the interface of games. Knows no other game.
"""
