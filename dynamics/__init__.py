"""Stage 2: the interactive dynamics model trained by shortcut forcing (Dreamer 4, section 3.2).

Imports data's own files and nn. Knows no pixels and no tasks.
"""
