"""The format on disk: writing, index, reading, checking, rebuilding, tables, latents.

Imports files and video. Knows nothing of where clips came from.
"""
