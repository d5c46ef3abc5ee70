"""Minecraft itself, through MineRL and MineStudio, behind the action space of `data.sources.vpt`.

Imports data's own files, `data.sources.vpt` and the interface of games. Knows no other game.
"""
