"""Tokens at rest: codec, store, order, loader, subsets."""
