"""Evaluators of what pre-training is good for: robustness and the ablation."""
