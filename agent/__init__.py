"""Stage 3: the agent: behaviour cloning, then reinforcement learning in imagination (Dreamer 4, section 3.3).

Imports data's own files, nn, tokenizer and dynamics. Knows nothing of where data came from.
"""
