"""The one training loop and what it needs: batches, checkpoints, metrics, optimisers.

Imports data, models and runs. Knows no single stage, no game.
"""
