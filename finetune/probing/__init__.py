"""Frozen features and what learns from them: logistic regression, grids of heads, k-NN, few labels."""
