"""Pixels to token ids and back: tokenizers, image sources, tokenising jobs."""
