"""`store.json` and `codebook.safetensors`: what makes a folder of shards a token store."""

import posixpath
from pathlib import Path

from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json, replacing, write_json
from seitpp.tokens.codec import bits_per_token

FORMAT, VERSION = "seitpp token store", 1
FIELDS = ("tokenizer", "codebook_size", "bits", "lookup", "grid", "preprocessing", "classes", "shards")


def write_manifest(folder, *, tokenizer, codebook, lookup, grid, preprocessing, classes, shards, **others):
    """Finish a store: write codebook.safetensors, then store.json, which makes it one.

    Args:
        folder: the store's folder, its shards written.
        tokenizer: {"name", "fingerprint"}.
        codebook: (k, c) float32.
        lookup: how the nearest code is meant, "cosine" or "euclidean".
        grid: (h, w).
        preprocessing: how images became the tokenizer's input, a dict.
        classes: class names.
        shards: what `write_shard` returned, in order.
        others: further entries, such as `subset`.
    """
    from safetensors.torch import save_file

    codebook_size = len(codebook)
    with replacing(Path(folder) / "codebook.safetensors") as temporary:
        save_file({"codebook": codebook.float().contiguous()}, temporary)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "tokenizer": tokenizer,
        "codebook_size": codebook_size,
        "bits": bits_per_token(codebook_size),
        "lookup": lookup,
        "grid": list(grid),
        "preprocessing": preprocessing,
        "classes": list(classes),
        "shards": shards,
        **others,
    }
    write_json(Path(folder) / "store.json", manifest)


def read_manifest(file):
    """Read a `store.json` and check that it is one of ours.

    Args:
        file: its path on this machine.
    Raises: UserError if it is missing, broken, or of another format.
    """
    file = Path(file)
    if not file.is_file():
        raise UserError(f"{file.parent} is not a token store (no store.json): make one with seitpp tokenize")
    try:
        manifest = read_json(file)
    except (ValueError, OSError) as error:
        raise UserError(f"{file} can't be read ({error}): run the command that made the store again") from error
    return check_manifest(manifest, file)


def check_manifest(manifest, name):
    """The manifest itself, if it is of our format and complete; `name` is what the message calls it."""
    known = isinstance(manifest, dict) and (manifest.get("format"), manifest.get("version")) == (FORMAT, VERSION)
    if not known:
        raise UserError(f"{name} is not of {FORMAT!r} version {VERSION}: tokenise again")
    missing = [field for field in FIELDS if field not in manifest]
    if missing:
        raise UserError(f"{name} lacks {missing[0]!r}: run the command that made the store again")
    return manifest


def inside(base, name):
    """Where a file named in the manifest lies: `base` is the store's folder or URL, `name` may begin with ../ ."""
    base = str(base).rstrip("/")
    scheme, mark, rest = base.rpartition("://")
    return scheme + mark + posixpath.normpath(posixpath.join(rest, name))
