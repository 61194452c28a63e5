"""What pyproject.toml asks for: all that the package imports, and nothing that nobody needs."""

import re
import sys
import tomllib

import pytest
from test_house import ALL, imports_of

import tiny

PROJECT = tomllib.loads((tiny.ROOT / "pyproject.toml").read_text())["project"]
IMPORTED_AS = {
    "imagecorruptions-imaug": "imagecorruptions",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}
IMPORTED_BY = {
    "tensorboard": "Accelerate", "wandb": "Accelerate", "trackio": "Accelerate", "datasets": "timm",
    "mkdocs-material": "mkdocs", "mkdocstrings": "mkdocs", "s3fs": "fsspec", "gcsfs": "fsspec",
}  # fmt: skip
"""What others import for us."""


def requirements():
    """Names of the packages that an installation asks for, extras included, those for tests left out."""
    extras = PROJECT["optional-dependencies"]
    words = [*PROJECT["dependencies"], *(word for name in extras if name != "test" for word in extras[name])]
    return sorted({re.match(r"[\w-]+", word)[0] for word in words} - {"seitpp"})


def module_of(package):
    """The name that a package is imported by."""
    return IMPORTED_AS.get(package, package.replace("-", "_"))


@pytest.fixture(scope="module")
def imported():
    """Top-level names that the package's files import, anywhere in them."""
    files = [*ALL, *(tiny.ROOT / "seitpp").glob("*.py")]
    found = {name.split(".")[0] for path in files for _, name, _ in imports_of(path)}
    return found - sys.stdlib_module_names - {"seitpp"}


@pytest.mark.parametrize("package", [package for package in requirements() if package not in IMPORTED_BY])
def test_what_is_asked_for_is_used(package, imported):
    assert module_of(package) in imported


def test_what_is_imported_is_asked_for(imported):
    assert imported - set(map(module_of, requirements())) == set()
