"""Damage files at random and read them: whatever they say, it ends in a result or in one line that a user can act on.

    python tests/fuzz.py --cases 5000 --seed 0
    python tests/fuzz.py --only store --cases 500
    python tests/fuzz.py --only models --case 137        # one case again, with its traceback

Each case is a function of (seed, target, number): whole files are copied, one is damaged, all are read as commands read
them. Asserted is that nothing but a UserError (or an OSError that names its file) comes out, no warning, that none
takes longer than the guard allows or kills the process, that a change of a store's bytes is noticed, and that all files
are afterwards what they were. Memory is bounded, so a file that asks for all of it is found too.
"""

import argparse
import contextlib
import faulthandler
import io
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import unicodedata
import warnings
from collections import Counter
from pathlib import Path

from fuzz_mutations import damage, remove
from fuzz_targets import TARGETS
from seitpp.runtime.command import explain
from seitpp.runtime.errors import UserError

SECONDS = 20.0
GIGABYTES = 16


class Hang(BaseException):
    """A case took longer than it may."""


def run_case(name, number, *, seed=0, whole=None):
    """Damage and read once.

    Args:
        name: of the target.
        number: of the case.
        seed: of all cases.
        whole: folder of the target's whole files; None: they are made.
    Returns: (what was done, what is wrong or None, the error's traceback or None).
    """
    target, generator = TARGETS[name], random.Random(f"{seed} {name} {number}")
    with tempfile.TemporaryDirectory() as place:
        folder, out = Path(place, "inputs"), Path(place, "out")
        out.mkdir()
        if whole is None:
            folder.mkdir()
            target.make(folder)
        else:
            shutil.copytree(whole, folder, symlinks=True)
        path = generator.choice(target.damaged(folder))
        content = path.read_bytes()
        done = f"{path.relative_to(folder)}: {damage(path, generator)}"
        changed = path.is_symlink() or not path.is_file() or path.read_bytes() != content
        if target.mended is not None:
            target.mended(folder)
        before = contents(folder)
        error = read(target, folder, out)
        wrong = judged(error, place)
        if wrong is None and error is None and target.strict and changed and path.suffix != ".json":
            wrong = "read without a word"
        if contents(folder) != before:
            wrong = "a file was lost or changed"
        told = None if error is None else "".join(traceback.format_exception(error))
        remove(folder)
        return done, wrong, told


def read(target, folder, out):
    """What a target's reader raises, or None."""
    signal.signal(signal.SIGALRM, _ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("error")
            target.read(folder, out)
    except (Exception, Hang) as error:
        return error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return None


def judged(error, place):
    """What is wrong with an error, or None."""
    if error is None:
        return None
    if isinstance(error, Hang):
        return "a hang"
    line = explain(error)
    if "(unexpected" in line or not isinstance(error, UserError | OSError):
        return f"{type(error).__name__}: {str(error)[:120]}"
    if isinstance(error, OSError) and not isinstance(error, UserError) and place not in line:
        return f"no file is named: {line[:120]}"
    return None if not any(unicodedata.category(letter) == "Cc" for letter in line) else f"not one line: {line[:120]!r}"


def contents(folder):
    """{path: what is there} of all below a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[path] = str(path.readlink())
        else:
            found[path] = path.read_bytes() if path.is_file() else path.stat().st_mode
    return found


def _ring(number, frame):
    raise Hang


def fuzz(names, cases, *, seed=0, say=print):
    """Run cases, divided among targets by their weights; returns {(target, what is wrong): [case, …]}."""
    total = sum(TARGETS[name].weight for name in names)
    found = {}
    for name in names:
        count = -(-cases * TARGETS[name].weight // total)
        started, ended = time.monotonic(), Counter()
        with tempfile.TemporaryDirectory() as whole:
            TARGETS[name].make(Path(whole))
            for number in range(count):
                faulthandler.dump_traceback_later(3 * SECONDS, exit=True)
                done, wrong, told = run_case(name, number, seed=seed, whole=whole)
                ended["wrong" if wrong else "read" if told is None else "refused"] += 1
                if wrong:
                    found.setdefault((name, wrong), []).append(number)
                    say(f"{name} {number}: {done}: {wrong}")
        faulthandler.cancel_dump_traceback_later()
        say(f"{name}: {count} cases in {time.monotonic() - started:.0f} s, {dict(ended)}")
    return found


def main():
    parser = argparse.ArgumentParser(description="Damage files at random and read them.")
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=[*TARGETS], default=[*TARGETS])
    parser.add_argument("--case", type=int, help="show this one, with its traceback")
    arguments = parser.parse_args()
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (GIGABYTES << 30, GIGABYTES << 30))
    if arguments.case is not None:
        print(*run_case(arguments.only[0], arguments.case, seed=arguments.seed), sep="\n")
        return
    found = fuzz(arguments.only, arguments.cases, seed=arguments.seed)
    print(f"{sum(map(len, found.values()))} cases are wrong, {len(found)} kinds")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
