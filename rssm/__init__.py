"""Dreamer V1, V2 and V3 on `Batch`: one skeleton, three generations as its parts and presets.

Imports data's own files and nn. Knows nothing of Dreamer 4.
"""
