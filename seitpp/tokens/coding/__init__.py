"""Rows of ids entropy-coded without loss, each by itself. See docs/store-format.md."""
