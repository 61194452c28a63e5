"""Where a report's numbers come from: the commands, the seconds they took, what they ran on, whose images they are."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seitpp.report.found_runs import Found


def command_section(found: Found) -> dict[str, Any]:
    """Commands with their seconds, or, without a log, as each run recorded its own.

    Returns: {"rows": [{stage, parts, seconds, memory, finished}], "seconds": their sum or None, "logged": whether
        they come from a log}.
    """
    rows = [
        {
            "stage": record.get("stage", ""), "parts": command_parts(record["command"]),
            "seconds": record.get("seconds"), "memory": record.get("peak_memory_mb"),
            "finished": record.get("finished", True),
        }
        for record in found.commands
    ]  # fmt: skip
    if rows:
        seconds = [row["seconds"] for row in rows if row["seconds"] is not None]
        return {"rows": rows, "seconds": sum(seconds) if seconds else None, "logged": True}
    for run in found.runs:
        _, _, flags = str(run.environment.get("command", "")).partition(" ")
        if flags:
            parts = command_parts(f"python -m seitpp.{run.stage} {flags}")
            rows.append({"stage": run.label, "parts": parts, "seconds": None, "memory": None, "finished": True})
    return {"rows": rows, "seconds": None, "logged": False}


def command_parts(command: str) -> list[str]:
    """A command cut before its flags, where a page may break it; joined by spaces it is the command again."""
    outside_quotes = r"""(?=(?:[^'"]|'[^']*'|"[^"]*")*$)"""
    return re.split(rf" (?=--\w){outside_quotes}", command)


def environment_section(found: Found) -> list[dict[str, Any]]:
    """What the runs ran on: [{"runs": labels, "facts": {name: text}}], one for each that differs."""
    groups = {}
    for run in found.runs:
        facts = _facts(run.environment)
        if facts:
            groups.setdefault(tuple(facts.items()), []).append(run.label)
    return [{"runs": labels, "facts": dict(facts)} for facts, labels in groups.items()]


def attribution_section(images: str | Path | None, folders: Sequence[str | Path]) -> list[str]:
    """Contents of the ATTRIBUTION.txt of folders of images: the one that was named, or `images` in those given."""
    places = [images] if images else [Path(folder) / "images" for folder in folders]
    files = [Path(place) / "ATTRIBUTION.txt" for place in places]
    return [file.read_text(encoding="utf-8", errors="replace").strip() for file in files if file.is_file()]


def _facts(environment):
    packages = [f"{name} {version}" for name, version in (environment.get("packages") or {}).items() if version]
    commit = str(environment.get("git_commit") or "")
    facts = {
        "device": environment.get("device"),
        "threads": environment.get("threads"),
        "Python": environment.get("python"),
        "packages": ", ".join(packages),
        "platform": environment.get("platform"),
        "commit": commit if re.fullmatch("[0-9a-f]{7,64}", commit) else None,
    }
    return {name: str(value) for name, value in facts.items() if value}
