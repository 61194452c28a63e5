"""Classifiers on pre-trained encoders: linear probe, k-NN, fine-tuning, training from scratch, baselines."""
