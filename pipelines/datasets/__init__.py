"""Commands that make and inspect data: record, prepare, check, show, export, download.

Imports data, games, evaluation's pictures, runs. Knows no models and no training.
"""
