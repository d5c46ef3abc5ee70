"""Real games behind one small Gymnasium interface, with scripted, random and human players.

Imports data as far as its sources; each game has a room. Knows no models.
"""
