"""Segmentation stores: images with label maps, in windows that cover them."""
