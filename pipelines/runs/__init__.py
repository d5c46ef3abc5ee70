"""Run folders: configurations, atomic writes, progress, stopping.

Imports data's own files and `data.files`. Knows no models and no stage.
"""
