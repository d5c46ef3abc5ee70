"""MiniGrid (Farama): the game and its planner.

Imports data's own files and the interface of games. Knows no other game.
"""

TILE = 8
"""Side of a cell in pixels, unless a game is made with another `tile_size`."""
