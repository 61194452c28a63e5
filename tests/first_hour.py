"""Walk a page: its commands and programs, one after the other, in a folder as a stranger has it.

`blocks_of` reads the fenced blocks of a section; `python tests/first_hour.py FOLDER` walks a list of them that it is
given on standard input, as JSON, and prints what each did. Rules, the only ones by which a page is not typed as it stands:

1. `pip …` and `make …` are left out: the package is there.
2. `accelerate launch … -m MODULE` is `python -m MODULE`: one process.
3. Trainings get a few steps: the flags of SHORTER come last.
4. Every command is forked from one process that has imported torch, as importing it takes most of the time; so are the
   steps that a command starts as processes.
5. Where a command says that an image can't be decoded, it is removed, as the message says, and the command typed again.
6. What needs a command that this version lacks is left out, and what needs that command's folder.
"""

import json
import os
import re
import shlex
import sys
from pathlib import Path

import tiny

SHORTER = {
    "train-tokenizer": "--steps 12 --batch_size 16 --warmup_steps 1",
    "train-tokenadapt": "--steps 3 --batch_size 16 --warmup_steps 1",
    "pretrain": "--steps 5 --batch_size 16 --warmup_steps 1",
    "finetune": "--steps 4 --batch_size 16 --warmup_steps 1 --seeds 1",
    "fit": "--quick true",
}
_BLOCK = re.compile(r"^```(bash|sh|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_MODULE = re.compile(r"accelerate launch (?:--\S+ \S+ )*-m (\S+)")


def blocks_of(page, sections):
    """The commands and programs of some sections of a page, in their order: ("seitpp", words) or ("python", text)."""
    text, found = (tiny.ROOT / page).read_text(), []
    for title in sections:
        assert f"\n## {title}\n" in text, f"{page} has no section {title!r}: name the one to walk in its place"
        section = re.split(r"^## ", text.split(f"\n## {title}\n", 1)[1], flags=re.MULTILINE)[0]
        for kind, content in _BLOCK.findall(section):
            if kind == "python":
                found.append(("python", content))
            else:
                lines = re.sub(r"\\\n\s*", "", content).splitlines()
                found += [("seitpp", words) for line in lines if (words := _words(line))]
    return found


def _words(line):
    """A line of a shell as the words after `seitpp`; None for one that is not walked."""
    words = shlex.split(_MODULE.sub(lambda match: f"seitpp {_stage_of(match[1])}", line), comments=True)
    if not words or words[0] in ("pip", "make"):
        return None
    assert words[0] == "seitpp", f"this line is not walked by any rule: {line}"
    return words[1:]


def _stage_of(module):
    from seitpp.cli import STAGES

    return next(name for name, (place, _) in STAGES.items() if place == module)


def walk(blocks, broken):
    """Do all of it here; yields {"what", "code", "said", "errors", "mended"} of each block, or {"what", "left_out"}."""
    from seitpp.cli import OTHERS, STAGES

    missing = set()
    for kind, content in blocks:
        what = shlex.join(["seitpp", *content]) if kind == "seitpp" else content
        if kind == "seitpp" and content[0] not in STAGES | OTHERS:
            missing |= {content[place + 1] for place, word in enumerate(content) if word == "--output_dir"}
            yield {"what": what, "left_out": content[0]}
        elif needed := [place for place in missing if re.search(rf"{re.escape(place)}\b(?!/)", what)]:
            yield {"what": what, "left_out": needed[0]}
        else:
            first = forked(kind, content)
            mended = first["code"] != 0 and broken in first["errors"]
            if mended:
                Path(broken).unlink()
            done = forked(kind, content) if mended else first
            yield {"what": what, **done, "mended": first["errors"] if mended else ""}


def forked(kind, content):
    """Run a block in a forked process: its exit code and what it said."""
    said = [Path(f".said-{os.getpid()}-{stream}") for stream in ("out", "err")]
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for number, path in enumerate(said, 1):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            code = _in_child(kind, content)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    out, errors = (path.read_text() for path in said)
    for path in said:
        path.unlink()
    return {"code": code, "said": out, "errors": errors}


def _in_child(kind, content):
    if kind == "python":
        exec(compile(content, "page", "exec"), {"__name__": "__main__"})
        return 0
    from seitpp.cli import main

    try:
        main([*content, *SHORTER.get(content[0], "").split()])
    except SystemExit as end:
        return end.code or 0
    return 0


def _steps_are_forked():
    """Have commands that run steps fork them, one after the other, instead of starting a Python for each."""
    from seitpp.runtime.errors import UserError
    from seitpp.runtime.steps.runner import StepRunner

    def call(step):
        done = forked("seitpp", step.command[1:])
        if done["code"]:
            raise UserError(f"{step.name}: {done['errors'].strip()}")

    make = StepRunner.__init__

    def make_forking(self, steps, folder, *, lanes, on_finish=None, call=call):
        make(self, steps, folder, lanes=1, on_finish=on_finish, call=call)

    StepRunner.__init__ = make_forking


def main():
    """Import what takes time, then walk."""
    import torch

    import seitpp.finetune.train
    import seitpp.tokenizers.train

    torch.set_num_threads(1)
    os.chdir(sys.argv[1])
    _steps_are_forked()
    given = json.load(sys.stdin)
    for done in walk(given["blocks"], given["broken"]):
        print(json.dumps(done), flush=True)


if __name__ == "__main__":
    main()
