"""Everything as commands: the command line, presets, the demo, and a room for each kind of command.

Imports everything; its rooms import those before them: runs, training, datasets, stages, scoring, interactive.
"""
