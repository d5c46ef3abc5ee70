"""Everything that needs a GPU, in one command that can be interrupted: `python -m benchmarks.gpu`."""
