"""The stages as commands: one module each, the training loop, checkpoints, run folders, presets."""
