"""The store format, file by file: manifest, shards, targets, sizes, checks. See docs/store-format.md."""
