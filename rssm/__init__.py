"""Dreamer V1, V2 and V3 on `Batch`: one skeleton, three generations as its parts and presets."""
