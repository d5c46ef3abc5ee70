"""Stage 2: the interactive dynamics model trained by shortcut forcing (Dreamer 4, section 3.2)."""
