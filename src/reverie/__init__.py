"""Reverie: an open, offline video world-model pipeline (Dreamer 4) from footage to a scored agent."""

__version__ = "0.1.0"
