"""Tokens: tokenizers (pixels to ids and back), codec, store, loader and codebook."""
