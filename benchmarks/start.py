"""How long one waits before anything happens: imports and `--help`.

    python -m benchmarks.start

Each is the least of five runs in a process of its own, after one that warms the disk cache.
"""

import json
import subprocess
import sys
import time

MEASURES = {
    "import mtm": ("-c", "import mtm"),
    "import mtm.pretrain": ("-c", "import mtm.pretrain"),
    "seitpp --help": ("-m", "downstream.cli", "--help"),
    "python -m mtm.pretrain --help": ("-m", "mtm.pretrain", "--help"),
}


def seconds(arguments, *, runs=5):
    """Least wall-clock time of a Python process over `runs`, in seconds."""
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def main():
    """Print the measures."""
    for name, arguments in MEASURES.items():
        print(json.dumps({"name": name, "value": round(seconds(arguments), 2), "unit": "s"}), flush=True)


if __name__ == "__main__":
    main()
