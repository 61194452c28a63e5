"""Tokenizers: the trainable one, the papers', and those that were published elsewhere."""
