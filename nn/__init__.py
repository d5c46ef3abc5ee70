"""Shared building blocks of the models: transformer, attention, heads, distributions, normalisers.

Imports only data's own files. Knows no stage, no files on disk.
"""
