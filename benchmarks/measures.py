"""What the benchmarks share: a JSON line a measure, the best of several rounds."""

import json
import time


def report(name, value, unit, **more):
    """Print one measure as a JSON line; numbers with four significant digits."""
    numbers = {"value": value, **more}
    rounded = {key: float(f"{number:.4g}") if isinstance(number, float) else number for key, number in numbers.items()}
    print(json.dumps({"name": name, "value": rounded.pop("value"), "unit": unit, **rounded}), flush=True)


def report_ratio(name, value, reference, unit):
    """Print a ratio with both of its sides."""
    report(name, value / reference, "x", ours=value, theirs=reference, sides=unit)


def per_second(action, count, *, rounds=5):
    """The most units a second that `action()`, which does `count` of them, reached in several rounds."""
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - start)
    return count / best
