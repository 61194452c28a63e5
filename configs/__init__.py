"""Recipes: one folder a stage, and nothing in them but differences from the dataclass defaults."""
