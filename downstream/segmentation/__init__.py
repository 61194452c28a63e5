"""Semantic segmentation on stored tokens (ADE20K and others): training, evaluation by whole images, new images."""
