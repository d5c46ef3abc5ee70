"""From shards to `Batch`: order, windows, mixtures, the resumable loader.

Imports all rooms of data before it. Knows no models.
"""
