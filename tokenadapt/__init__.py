"""Geometry on embeddings: f and g, the per-sample warp, TokenAdapt's training and its measures."""
