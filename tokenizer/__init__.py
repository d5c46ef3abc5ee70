"""Stage 1: the causal masked-autoencoder tokenizer (Dreamer 4, section 3.1).

Imports data's own files, `data.files` for weights, and nn. Knows no actions.
"""
