"""Speed and size, measured: `python -m benchmarks.NAME` prints one JSON line a measure."""
