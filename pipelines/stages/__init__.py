"""One module per learning stage, from the tokenizer to imagination, and the baselines.

Imports data, models, games, runs, training, datasets. Knows no reports.
"""
