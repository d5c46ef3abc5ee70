"""Videos, logs and games to `Batch`: decoding, importers, shards, loader. Knows nothing of models."""
