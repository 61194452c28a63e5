"""`seitpp store ACTION STORE [flags]`: look at a token store, check it, exchange it; imports what the action needs."""

import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest

from seitpp.runtime.command import run_command
from seitpp.runtime.locations import Location
from seitpp.runtime.suggest import did_you_mean

ACTIONS = {
    "info": ("seitpp.store_cli", "InfoConfig", "info", "what is in it"),
    "verify": ("seitpp.store_cli", "VerifyConfig", "verify", "checksums, row counts, ranges of ids and labels"),
    "usage": ("seitpp.tokens.usage", "UsageConfig", "main", "how it uses its codebook"),
    "synonyms": (
        "seitpp.tokens.synonyms",
        "SynonymsConfig",
        "main",
        "each code's nearest codes, as published JSON",
    ),
    "export": (
        "seitpp.tokenizers.store_export",
        "ExportConfig",
        "main",
        "to Parquet, the SeiT release's files, or pictures",
    ),
    "import": ("seitpp.tokenizers.store_import", "ImportConfig", "main", "from Parquet or the SeiT release"),
    "code": (
        "seitpp.tokens.code_store",
        "CodeStoreConfig",
        "main",
        "write its rows entropy-coded, without loss",
    ),
    "subset": (
        "seitpp.tokens.subset",
        "SubsetConfig",
        "main",
        "a part of its rows, by count, class or bytes",
    ),
    "budget": (
        "seitpp.tokenizers.store_budget",
        "BudgetConfig",
        "main",
        "what each way below so many bytes costs",
    ),
}


@dataclass(frozen=True, kw_only=True)
class InfoConfig:
    """Say what a store holds: seitpp store info STORE."""

    store: Location
    """the store's folder or URL"""
    json: bool = False
    """print JSON: rows, bytes by what they are of, and the whole manifest"""


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """Read a store whole and name the first bad file: seitpp store verify STORE."""

    store: Location
    """the store's folder or URL"""


def main(argv: Sequence[str]) -> None:
    """Run an action and exit: 0, or 1 with one line where something is wrong."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return
    action, rest = argv[0], list(argv[1:])
    if action not in ACTIONS:
        print(f"error: no action {action} of seitpp store; {did_you_mean(action, ACTIONS)}", file=sys.stderr)
        sys.exit(1)
    module, config_class, function, _ = ACTIONS[action]
    module = importlib.import_module(module)
    sys.argv = [f"seitpp store {action}", *rest]
    run_command(getattr(module, function), getattr(module, config_class), recipes="store", argv=as_flags(action, rest))


def as_flags(action: str, words: list[str]) -> list[str]:
    """Turn what people write into flags: STORE into --store STORE, --from into --source, a bare --json into a yes."""
    if words and not words[0].startswith("-") and action != "import":
        words = ["--store", *words]
    flags = []
    for word, following in zip_longest(words, words[1:]):
        if action == "import" and (word == "--from" or word.startswith("--from=")):
            word = word.replace("--from", "--source", 1)
        if word == "--json" and following not in ("true", "false"):
            word = "--json=true"
        flags.append(word)
    return flags


def info(config: InfoConfig) -> None:
    """Print what a store holds."""
    from seitpp.tokens.store import open_store

    store = open_store(config.store)
    manifest = store.manifest
    if config.json:
        size = {name: number for name, number in asdict(store.size).items() if name != "rows"}
        about = {"rows": len(store), "row_bytes": store.row_bytes, "bytes": {**size, "total": store.size.total}}
        print(json.dumps({**about, **manifest}, indent=2))
        return
    height, width = store.grid
    places = f"{height} x {width}" if store.geometry == "grid" else f"{height} x {width} (one-dimensional)"
    windows = _windows(manifest, len(store))
    lines = {
        **(windows or {"images": f"{len(store):,}"}),
        "tokens": f"{places} of K = {store.codebook_size:,} ({manifest['bits']} bits each)",
        "a window" if windows else "an image": _row_bytes(store),
        "shards": f"{len(manifest['shards']):,}",
        "classes": _named(store.classes),
        **({"masks": _masks(manifest["mask"])} if "mask" in manifest else {}),
        "tokenizer": f"{store.tokenizer['name']} {store.tokenizer['fingerprint'][:12]}, {store.lookup} look-up",
        "columns": ", ".join(store.columns),
        "bytes": f"{store.size.total:,}: {_parts(store.size)}",
    }
    print(config.store)
    for name, value in lines.items():
        print(f"  {name:<11} {value}")


def _windows(manifest, rows):
    """The lines of a segmentation store, whose rows are windows of images; {} of another."""
    if "windows" not in manifest:
        return {}
    told = manifest["windows"]
    size, stride = (" x ".join(map(str, told[name])) for name in ("size", "stride"))
    side = f"short side {told['short_side']}" if told["short_side"] else "images of their own size"
    return {"windows": f"{rows:,} of {size} pixels, stride {stride}, {side}"}


def _masks(meaning):
    """The values of masks."""
    return _named(meaning["classes"]) + (f"; {meaning['ignore']} is ignored" if meaning["ignore"] is not None else "")


def _named(classes):
    """How many names there are and the first of them."""
    return f"{len(classes)}: {', '.join(classes[:5])}{', …' if len(classes) > 5 else ''}" if classes else "none"


def _row_bytes(store):
    """Bytes of a row's tokens; of coded rows, on average."""
    if store.manifest["coding"] == "planes":
        return f"{store.row_bytes:,} bytes"
    return f"{store.size.tokens / max(1, len(store)):,.1f} bytes, coded (packed: {store.row_bytes:,})"


def _parts(size):
    """What a store's bytes are of, such as "tokens 272, labels 64, keys 208, …"."""
    return ", ".join(f"{name} {number:,}" for name, number in asdict(size).items() if name != "rows" and number)


def verify(config: VerifyConfig) -> None:
    """Check a whole store, with progress."""
    from seitpp.runtime.progress import Progress
    from seitpp.tokens.row_blocks import MANY_ROWS
    from seitpp.tokens.store import open_store

    store = open_store(config.store)
    shards = len(store.manifest["shards"])
    with Progress(shards, "verify", enabled=len(store) > MANY_ROWS) as progress:
        store.verify(progress.update)
    print(f"{config.store}: {len(store)} rows in {shards} shards, all as written")


def _help():
    width = max(map(len, ACTIONS))
    return "\n".join(
        [
            "usage: seitpp store ACTION STORE [--flag value ...]",
            "",
            *(f"  {name:<{width}}  {text}" for name, (_, _, _, text) in ACTIONS.items()),
            "",
            "seitpp store ACTION --help lists an action's flags.",
        ]
    )
