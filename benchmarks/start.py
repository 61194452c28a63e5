"""How long one waits before anything happens: imports and `--help`.

    python -m benchmarks.start
    python -m benchmarks.start --quick     one run of each

Each is the least of five runs in a process of its own, after one that warms the disk cache.
"""

import argparse
import subprocess
import sys
import time

from benchmarks.measures import report

MEASURES = {
    "import seitpp.mtm": ("-c", "import seitpp.mtm"),
    "import seitpp.mtm.pretrain": ("-c", "import seitpp.mtm.pretrain"),
    "seitpp --help": ("-m", "seitpp.cli", "--help"),
    "python -m seitpp.mtm.pretrain --help": ("-m", "seitpp.mtm.pretrain", "--help"),
}


def seconds(arguments, *, runs):
    """Least wall-clock time of a Python process over `runs` after the first, in seconds."""
    times = []
    for _ in range(1 + runs):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return min(times[1:] or times)


def main():
    """Print the measures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one run of each")
    runs = 0 if parser.parse_args().quick else 5
    for name, words in MEASURES.items():
        report(name, seconds(words, runs=runs), "s")


if __name__ == "__main__":
    main()
