"""Commands that make and inspect data: record, prepare, check, show, export, download.

Imports data, games, evaluation's pictures, runs, and worlds for an agent that plays. Knows no training.
"""
