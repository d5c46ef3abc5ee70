"""Crafter (Danijar Hafner): the game and a scripted player that climbs its whole tech tree.

Imports data's own files and the interface of games. Knows no other game.
"""
