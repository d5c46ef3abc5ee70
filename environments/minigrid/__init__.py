"""MiniGrid (Farama): the game and its planner.

Imports data's own files and the interface of games. Knows no other game.
"""
