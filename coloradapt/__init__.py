"""Appearance on embeddings: ColorAdapt and Emb-Noise."""
