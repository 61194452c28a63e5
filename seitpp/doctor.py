"""`seitpp doctor`: versions, devices, memory, free disk, extras: what one asks first when something does not run."""

import os
import platform
import shutil
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from seitpp.runtime.machine import cpu_name
from seitpp.runtime.recipes import recipes_folder

_PACKAGES = ("torch", "torchvision", "timm", "accelerate", "pyarrow", "numpy", "scikit-learn", "pandas")
_ABSENT = "not installed"


def findings() -> dict[str, dict[str, str]]:
    """{title: {what: how it is}}; nothing is changed, and no network is used."""
    return {
        "seitpp": {
            "version": version(),
            "Python": f"{platform.python_version()} ({sys.executable})",
            "system": platform.platform(),
        },
        "packages": {name: _version_of(name) for name in _PACKAGES},
        "extras": _extras(),
        "devices": _devices(),
        "places": _places(),
    }


def version() -> str:
    """Of seitpp, as it is installed."""
    return _version_of("seitpp")


def cli() -> None:
    """Print what was found."""
    if set(sys.argv[1:]) & {"-h", "--help", "--help_all"}:
        print("usage: seitpp doctor\n\nPrint versions, devices, memory, free disk and extras.")
        return
    for title, lines in findings().items():
        print(title)
        width = max(map(len, lines))
        for name, text in lines.items():
            print(f"  {name:<{width}}  {text}")


def _version_of(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return _ABSENT


def _extras() -> dict[str, str]:
    """Each extra of the package: whether all of it is there, else how to get it."""
    from packaging.requirements import Requirement

    try:
        about = metadata.metadata("seitpp")
        wanted = [Requirement(each) for each in metadata.requires("seitpp") or []]
    except metadata.PackageNotFoundError:
        return {"-": "seitpp is not installed, so nobody says which extras it has: pip install -e ."}
    said = {}
    for extra in about.get_all("Provides-Extra") or []:
        if extra in ("test", "docs"):  # of a checkout
            continue
        needed = [each for each in wanted if each.marker is not None and each.marker.evaluate({"extra": extra})]
        missing = [each.name for each in needed if each.name != "seitpp" and _version_of(each.name) == _ABSENT]
        said[extra] = f"lacks {', '.join(missing)}: pip install 'seitpp[{extra}]'" if missing else "yes"
    return said


def _devices() -> dict[str, str]:
    said = {"CPU": f"{cpu_name()}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores may be used"}
    said["memory"] = _gigabytes(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    if find_spec("torch") is None:
        return said | {"GPU": "torch is not installed"}
    import torch

    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        said[f"GPU {number}"] = f"{about.name}, {_gigabytes(about.total_memory)}"
    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built for CPUs"
        said["GPU"] = f"none in use ({built}); everything runs on the CPU"
    launched = os.environ.get("WORLD_SIZE", "1")
    said["processes"] = f"{launched}; seitpp launch --processes N STAGE … starts N of them"
    return said


def _places() -> dict[str, str]:
    from seitpp.tokens.remote import CacheConfig

    here, cache = Path.cwd(), CacheConfig().path
    existing = next(each for each in (cache, *cache.parents) if each.exists())
    return {
        "here": f"{here}, {_gigabytes(shutil.disk_usage(here).free)} free",
        "cache of remote stores": f"{cache}, {_gigabytes(shutil.disk_usage(existing).free)} free",
        "recipes": str(recipes_folder(".").resolve()),
        "for Accelerate": " ".join(
            f"--config_file {path.resolve()}" for path in sorted(recipes_folder("accelerate").glob("*.yaml"))
        ),
    }


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
