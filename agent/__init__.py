"""Stage 3: the agent: behaviour cloning, then reinforcement learning in imagination (Dreamer 4, section 3.3)."""
