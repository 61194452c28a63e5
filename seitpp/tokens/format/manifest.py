"""`store.json` and `codebook.safetensors`: what makes a folder of shards a token store. Format: docs/store-format.md.

Version 2 says more than version 1: `coding`, `columns`, `mask`, the codebook's checksum, and the bytes of each column.
Shards without targets are the same in both, byte for byte, so fingerprints and trainings are too.
"""

import hashlib
import posixpath
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json, replacing, write_json
from seitpp.runtime.schema import check, shown
from seitpp.tokens.format import manifest_schema
from seitpp.tokens.format.layout import CODINGS, PLANES, RANS, bits_per_token
from seitpp.tokens.format.manifest_schema import BASE_COLUMNS, FORMAT

VERSION = 2
TABLES_FILE = "coding.safetensors"
_READS = (1, 2)
_AGAIN = "run the command that made the store again"


def write_manifest(
    folder: str | Path,
    *,
    tokenizer: dict[str, str],
    codebook: Any,
    lookup: str,
    grid: Sequence[int],
    preprocessing: dict[str, Any],
    classes: Sequence[str],
    shards: Sequence[dict[str, Any]],
    mask: dict[str, Any] | None = None,
    windows: dict[str, Any] | None = None,
    columns: Sequence[str] | None = None,
    tables: bytes | None = None,
    **others: Any,
) -> None:
    """Finish a store: write codebook.safetensors and coding.safetensors, then store.json, which makes it one.

    Args:
        folder: the store's folder, its shards written.
        tokenizer: {"name", "fingerprint"}, and {"geometry": "none"} where its tokens are one-dimensional.
        codebook: (k, c) float32 tensor.
        lookup: how the nearest code is meant, "cosine", "euclidean" or "signs".
        grid: (h, w).
        preprocessing: how images became the tokenizer's input, a dict.
        classes: class names.
        shards: what `write_shard` returned, in order.
        mask: of a store with masks, {"classes": names of the values, or [] where they have none; "ignore": the value
            that counts for nothing, or None}; None: the same without names and such a value.
        windows: of a segmentation store, {"size": [h, w] of a window; "stride": [down, across]; "short_side": what the
            short side of images was resized to, or None; "tile": [h, w] that the tokenizer encoded at a time}, pixels.
        columns: of the shards; None: what they say of themselves, which shards that were written elsewhere may not.
        tables: content of coding.safetensors, where rows are coded by it; None: they are packed.
        others: further entries, such as `subset`.
    Raises: UserError if shards differ in their columns, or a field is none that a reader would take.
    """
    from safetensors.torch import save_file

    from seitpp.tokens.format.codebook_tensor import tensors_of

    codebook_size, codebook_tensors = len(codebook), tensors_of(codebook, lookup)
    columns = _columns_of(shards) if columns is None else columns
    if "mask" in columns:
        others["mask"] = {"classes": list(mask["classes"]), "ignore": mask["ignore"]} if mask else dict(_NAMELESS)
    if "window" in columns and windows is not None:
        others["windows"] = windows
    with replacing(Path(folder) / "codebook.safetensors") as temporary:
        save_file(codebook_tensors, temporary)
        content = temporary.read_bytes()
    if tables is not None:
        others["coding_tables"] = _described(tables)
        with replacing(Path(folder) / TABLES_FILE) as temporary:
            temporary.write_bytes(tables)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "tokenizer": tokenizer,
        "codebook_size": codebook_size,
        "bits": bits_per_token(codebook_size),
        "coding": PLANES if tables is None else RANS,
        "lookup": lookup,
        "grid": list(grid),
        "preprocessing": preprocessing,
        "classes": list(classes),
        "columns": list(columns),
        "codebook": _described(content),
        "shards": list(shards),
        **others,
    }
    file = Path(folder) / "store.json"
    write_json(file, check_manifest(manifest, file))


def read_manifest(file: str | Path) -> dict[str, Any]:
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
    except ValueError as error:
        raise UserError(f"{file} can't be read ({shown(error, 120)}): {_AGAIN}") from error
    return check_manifest(manifest, file)


def check_manifest(manifest: Any, name: str | Path) -> dict[str, Any]:
    """The manifest, if all of it is as the format says; that of version 1 with the fields that version 2 added.

    Args:
        manifest: content of a store.json.
        name: what the message calls it.
    Raises: UserError if it is not of a version or coding that this reader knows, or a field is missing or wrong.
    """
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(f"{name} is not of {FORMAT!r} version 1 or 2: tokenise again")
    version, coding = manifest.get("version"), manifest.get("coding", PLANES)
    if type(version) is not int or version not in _READS:
        told = shown(version, 20)
        raise UserError(f"{name} is of format version {told}, this seitpp reads version 1 and 2: update seitpp")
    if isinstance(coding, str) and coding not in CODINGS:
        told, known = shown(repr(coding), 40), " and ".join(map(repr, CODINGS))
        raise UserError(f"{name}: the tokens are coded as {told}, this seitpp reads {known}: update it")
    check(manifest, manifest_schema.manifest, name, _AGAIN)
    if version == 1:
        return {"columns": list(BASE_COLUMNS), **manifest, "coding": PLANES}
    return manifest


def inside(base: str | Path, name: str) -> str:
    """Where a file named in the manifest lies: `base` is the store's folder or URL, `name` may begin with ../ .

    Raises: UserError if the name leads out of a URL's host or bucket.
    """
    base = str(base).rstrip("/")
    scheme, mark, rest = base.rpartition("://")
    if mark and name.split("/").count("..") >= len(rest.split("/")):
        raise UserError(f"{base}: its store.json names {shown(name, 60)}, which lies outside of what the URL is of")
    return scheme + mark + posixpath.normpath(posixpath.join(rest, name))


def check_owners(manifest: dict[str, Any], manifest_of: Callable[[str], dict[str, Any]], where: object) -> None:
    """Refuse a subset with a file that no store has as a shard: what a manifest names may be private, or no data.

    Args:
        manifest: of the subset.
        manifest_of: gives the manifest of a store by its place, as seen from the subset's folder.
        where: the subset, for messages.
    Raises: UserError naming the first such file.
    """
    owners: dict[str, dict[str, str]] = {}
    for shard in manifest["shards"]:
        place, _, name = shard["file"].rpartition("/")
        if place not in owners:
            try:
                owners[place] = {each["file"]: each["sha256"] for each in manifest_of(place)["shards"]}
            except UserError as error:
                raise UserError(f"{where} is a subset of another store, and {error}") from error
        if owners[place].get(name) != shard["sha256"]:
            raise UserError(
                f"{where}: {shown(shard['file'], 80)} is no shard of the store in that folder, or was made anew since: "
                f"make the subset again (seitpp store subset)"
            )


def _described(content: bytes) -> dict[str, Any]:
    """What the manifest says of a file."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


_NAMELESS = {"classes": [], "ignore": None}


def _columns_of(shards: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The columns that the shards share; shards that don't say have the three of version 1."""
    columns = [tuple(shard.get("content", BASE_COLUMNS)) for shard in shards] or [BASE_COLUMNS]
    if other := [shard["file"] for shard, each in zip(shards, columns, strict=False) if each != columns[0]]:
        names = ", ".join(columns[0])
        raise UserError(
            f"{other[0]} has other columns than {shards[0]['file']} ({names}): {_AGAIN}, with --resume none"
        )
    return columns[0]
