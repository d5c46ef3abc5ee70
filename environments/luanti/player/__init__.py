"""The scripted player of Luanti: body, terrain, routes, crafting, slips.

Imports Luanti and `data.sources.vpt`. Knows no other game.
"""
