"""Luanti (Minetest) with minetest_game: a world like Minecraft's, played by keys and mouse from pixels in lock step.

Imports data, the interface of games, and Minecraft's quest. Knows no players.
"""
