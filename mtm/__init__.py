"""Masked token modelling: masks, model, augmentation pipeline, pre-training, pictures."""
