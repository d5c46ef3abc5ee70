"""Stage 1: the causal masked-autoencoder tokenizer (Dreamer 4, section 3.1)."""
