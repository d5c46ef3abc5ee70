"""Shared building blocks of the models: transformer, attention, heads, distributions, normalisers."""
