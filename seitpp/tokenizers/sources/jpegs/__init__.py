"""Images kept as JPEGs within a number of bytes: what one would do without tokens."""
