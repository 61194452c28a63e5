"""The networks of tokenizers, ours and published ones."""
