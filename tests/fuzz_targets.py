"""What strangers' files are read by: each target makes whole files in a folder, and reads them as commands do.

`make(folder)` writes them; `read(folder, out)` reads them and may write below `out` alone. `damaged(folder)` lists
the files that are damaged; `mended(folder)` makes a stranger's manifest say what the damaged file is, by its checksum.
"""

import contextlib
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import fsspec
import numpy as np
import torch
from PIL import Image

import report_runs
import tiny
import tiny_segmentation
import toy_training
from seitpp import load, load_tokenizer, open_store, tokenize_images
from seitpp.finetune.classifier import Classifier, save_classifier
from seitpp.finetune.labelled import open_labelled
from seitpp.mtm.encoder import EncoderConfig
from seitpp.mtm.model import MaskedTokenModel
from seitpp.mtm.pretrain import PretrainConfig
from seitpp.report.report import write_report
from seitpp.runtime.command import parse
from seitpp.runtime.foreign.state_dict import read_weights
from seitpp.runtime.results import read_results
from seitpp.tokenizers import store_export, store_import
from seitpp.tokenizers.networks.reduced import ReducedTokenizer
from seitpp.tokenizers.networks.titok import SideConfig, TiTok, TiTokConfig
from seitpp.tokenizers.networks.vit_vqgan import TransformerConfig, ViTVQGAN, ViTVQGANConfig
from seitpp.tokenizers.networks.vq import VQConfig, VQTokenizer
from seitpp.tokenizers.tokenize import TokenizeConfig, make_shards
from seitpp.tokenizers.tokenize_job import TokenizeJob
from seitpp.tokens import subset, usage
from seitpp.tokens.exchange.codebook_file import read_codebook
from seitpp.tokens.format.targets import Targets
from seitpp.tokens.remote import CacheConfig

ROWS = 9
MASK = {"classes": ["sky", "road"], "ignore": 255}


def all_files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


@dataclass(frozen=True)
class Target:
    """See the module.

    Attributes:
        weight: how often it is drawn.
        strict: whether a change of one byte must be noticed.
    """

    make: object
    read: object
    damaged: object = all_files
    mended: object = None
    weight: int = 1
    strict: bool = False


# Stores


def make_store(folder):
    masks = [None if row == 3 else np.full((3, 4), row % 2, np.uint8) for row in range(ROWS)]
    targets = Targets.of(labels=[[row % 3] if row % 2 else None for row in range(ROWS)], masks=masks)
    ids = tiny.random_ids(ROWS, 300, (2, 3))
    tiny.make_store(folder / "store", ids, codes=300, rows_per_shard=5, targets=targets, mask=MASK)


def make_subset(folder):
    make_store(folder)
    config = subset.SubsetConfig(store=str(folder / "store"), output_dir=str(folder / "part"), classes=("cow", "ant"))
    with contextlib.redirect_stdout(io.StringIO()):
        subset.main(config)


def read_store(store, out, *, verified=True):
    """Everything that is read of a store, and what is made of it; unverified, ids may be beyond the codes."""
    everything = range(len(store))
    ids = store.ids(everything)
    assert not verified or ids.max() < store.codebook_size
    assert set(store.labels.tolist()) <= {-1, *range(len(store.classes))}
    store.keys()
    store.content(everything)
    store.codebook[ids.clamp(max=store.codebook_size - 1)]
    assert store.size.total >= 0
    reads = (("labels", store.label_lists_at), ("mask", store.masks_at), ("window", store.windows_at))
    for column, read in (*reads, ("truth", store.truths_at)):
        if column in store.columns:
            read(everything)
    with contextlib.redirect_stdout(io.StringIO()):
        if isinstance(store.folder, Path):
            spec = str(store.folder)
            verify = {"verify_shards": store.verify_shards}
            for kind in ("parquet", "seit"):
                store_export.main(store_export.ExportConfig(store=spec, format=kind, out=str(out / kind), **verify))
            usage.main(usage.UsageConfig(store=spec, **verify))
            subset.main(subset.SubsetConfig(store=spec, output_dir=str(out / "s"), fraction=0.5, **verify))
            read_part = open_store(out / "s")
            read_part.ids(range(len(read_part)))
    store.verify()


def mend_store(folder):
    """Say in the manifest what its files are now."""
    for name in ("part", "store"):
        file = folder / name / "store.json"
        if not file.is_file():
            continue
        manifest = json.loads(file.read_text())
        for entry in (*manifest["shards"], manifest["codebook"], manifest.get("subset")):
            path = entry and folder / name / entry.get("file", "codebook.safetensors")
            if path and path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                entry.update(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
        file.write_text(json.dumps(manifest))


def read_remote(folder, out):
    system = fsspec.filesystem("memory")
    with contextlib.suppress(FileNotFoundError):
        system.rm("/fuzz", recursive=True)
    for path in all_files(folder):
        if not path.is_symlink():
            system.pipe_file(f"/fuzz/{path.relative_to(folder).as_posix()}", path.read_bytes())
    config = CacheConfig(folder=str(out / "cache"), attempts=1, gigabytes=0.01)
    read_store(open_store("memory://fuzz/part", config), out)


def not_shards(folder):
    return [path for path in all_files(folder) if path.suffix != ".arrow"]


def shards_and_tables(folder):
    return [path for path in all_files(folder) if path.suffix != ".json" and path.name != "codebook.safetensors"]


# Models and tokenizers


def make_models(folder):
    tiny.make_mtm(folder / "mtm")
    tiny.make_token_adapt(folder / "tokenadapt")
    config = EncoderConfig(width=24, depth=1, heads=3)
    classifier = Classifier(config, view=(4, 6), codebook_size=37, embedding_dim=5, classes=3)
    save_classifier(folder / "classifier" / "weights", classifier, tokenizer="a" * 64, class_names=["x", "y", "z"])


@torch.no_grad()
def read_models(folder, out):
    ids = tiny.random_ids(2, 37, tiny.GRID)
    for name in ("mtm", "tokenadapt", "classifier"):
        model = load(folder / name)
        if isinstance(model, MaskedTokenModel):
            model.encoder.pooled(ids[:, : model.encoder.view[0], : model.encoder.view[1]] % 37)


def make_tokenizers(folder):
    torch.manual_seed(0)
    side = TransformerConfig(width=4, depth=1, heads=1, mlp=4)
    vit = ViTVQGAN(
        ViTVQGANConfig(image_size=(8, 8), patch_size=4, encoder=side, decoder=side, codebook_size=8, codebook_dim=4)
    )
    vit.save(folder / "vit")
    titok = TiTokConfig(
        image_size=(8, 8), patch_size=4, tokens=3, encoder=SideConfig(width=64, depth=1),
        decoder=SideConfig(width=64, depth=1), codebook_size=8, codebook_dim=4, pixel_decoder=None,
    )  # fmt: skip
    TiTok(titok).save(folder / "titok")
    config = VQConfig(
        image_size=(16, 16), space_to_depth=4, widths=(32,), attention=False, codebook_size=8, codebook_dim=4
    )
    vq = VQTokenizer.untrained(config)
    vq.save(folder / "vq")
    ReducedTokenizer(vit, [1, 4], torch.tensor([0, 0, 0, 1, 1, 0, 1, 1])).save(folder / "reduced")


@torch.no_grad()
def read_tokenizers(folder, out):
    for name in ("vit", "vq", "reduced", "titok"):
        tokenizer = load_tokenizer(folder / name)
        if np.prod(tokenizer.image_size) < 10_000:
            tokenizer.decode(tokenizer.encode(torch.rand(1, 3, *tokenizer.image_size)))
        assert len(tokenizer.fingerprint) == 64


def make_checkpoints(folder):
    weights = {"a.weight": torch.rand(3, 4), "a.bias": torch.rand(3)}
    torch.save({"model": weights, "epoch": 3}, folder / "model.ckpt")
    torch.save(torch.rand(5, 4), folder / "codebook.ckpt")
    torch.save(torch.nn.Linear(2, 3), folder / "module.ckpt")


def read_checkpoints(folder, out):
    for name in ("model", "module"):
        read_weights(folder / f"{name}.ckpt")
    read_codebook(folder / "codebook.ckpt")


# Runs


def toy(folder, resume="auto", **fields):
    tiny.forget_accelerator()
    fields = {"steps": 4, "save_every": 2, "log_every": 1, "mixed_precision": "no", **fields}
    toy_training.main(toy_training.ToyConfig(output_dir=str(folder), resume=resume, **fields))


def make_run(folder):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        toy(folder / "run", keep_checkpoints=1)
    (folder / "run" / "summary.json").unlink()


def read_run(folder, out):
    """Resume a copy of it: what a run has of its own it may change."""
    copy = out / "run"
    copy.mkdir()
    for path in folder.joinpath("run").rglob("*"):
        target = copy / path.relative_to(folder / "run")
        if path.is_dir() and not path.is_symlink():
            target.mkdir(exist_ok=True)
        elif path.is_file() and not path.is_symlink():
            target.write_bytes(path.read_bytes())
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        toy(copy)


def make_report(folder):
    report_runs.write_pretraining(folder / "mtm")
    report_runs.write_finetuning(folder / "finetune", "mtm", (0.5, 0.6))
    report_runs.write_token_adapt(folder / "tokenadapt")
    tiny.make_store(folder / "store", tiny.random_ids(4, 37, (4, 6)))
    (folder / "commands.jsonl").write_text(
        json.dumps({"stage": "x", "command": "seitpp x --y z", "seconds": 1.5}) + "\n"
    )


def read_report(folder, out):
    read_results(path for path in folder.iterdir() if path.is_dir())
    write_report([folder], out / "report.html")


# Tables, recipes, other formats


def make_labels(folder):
    tiny.make_store(folder / "store", tiny.random_ids(ROWS, 37, (2, 3)))
    names = ["ant", "b ee", '"c, ow"']
    lines = [f"{row:04d}.png,{names[row % 3]}" for row in range(ROWS)]
    (folder / "labels.csv").write_text("\n".join(["key,label", *lines, ""]))


def read_labels(folder, out):
    open_labelled(folder / "store", folder / "labels.csv")


def make_recipe(folder):
    recipe = (
        "# a recipe\nstore: st\nsteps: 10\nlr: 1.0e-3\nmodel:\n  encoder:\n    width: 24\n    depth: 2\n    heads: 3\n"
    )
    (folder / "base.yaml").write_text(recipe)
    (folder / "recipe.yaml").write_text("base: base\naugment:\n  crop: false\nview: [4, 6]\nmixed_precision: bf16\n")


def read_recipe(folder, out):
    parse(PretrainConfig, ["--config", str(folder / "recipe.yaml"), "--output_dir", str(out)], recipes="pretrain")


def make_exchange(folder):
    make_store(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        for kind in ("parquet", "seit"):
            config = {"store": str(folder / "store"), "out": str(folder / kind), "name": "x"}
            store_export.main(store_export.ExportConfig(format=kind, **config))
    (folder / "classes.json").write_text('{"ant": 0, "bee": 1, "cow": 2}')


def read_exchange(folder, out):
    seit = {name: str(folder / "seit" / f"x-{name}") for name in ("token.data.bin.gz", "label.txt")}
    release = {
        "source": "seit", "data": seit["token.data.bin.gz"], "labels": seit["label.txt"], "grid": "2,3",
        "classes": str(folder / "classes.json"), "codebook": str(folder / "seit" / "codebook.ckpt"),
        "synonyms": str(folder / "seit" / "synonyms.json"),
    }  # fmt: skip
    failures = []
    for name, fields in (("a", release), ("b", {"source": "parquet", "data": str(folder / "parquet")})):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            try:
                store_import.main(store_import.ImportConfig(output_dir=str(out / name), **fields))
                read_store(open_store(out / name), out / f"of {name}")
            except Exception as error:
                failures.append(error)
    if failures:
        raise failures[0]


def of_exchange(folder):
    return [path for path in all_files(folder) if path.parent.name != "store"]


# Images


def make_images(folder):
    pixels = np.random.default_rng(0).integers(256, size=(24, 24, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    for name in ("a.png", "b.jpg", "c.webp", "d.gif", "e.bmp", "f.tif"):
        (folder / "images" / name[0]).mkdir(parents=True)
        image.save(folder / "images" / name[0] / name)
    with tarfile.open(folder / "images.tar", "w") as tar:
        for place in range(3):
            for name in ("a/a.png", "b/b.jpg"):
                tar.add(folder / "images" / name, f"{place}{name[-5:]}")
    make_tokenizers(folder)


def of_images(folder):
    return [*all_files(folder / "images"), folder / "images.tar"]


def read_images(folder, out):
    failures = []
    for name in ("images", "images.tar"):
        try:
            tokenize_images(str(folder / name), folder / "vit", output_dir=out / name)
        except Exception as error:
            failures.append(error)
    if failures:
        raise failures[0]


def make_unfinished(folder):
    """A store of three shards that was stopped before its manifest."""
    make_tokenizers(folder)
    tiny.make_images(folder / "images", {"ant": 3, "bee": 3}, size=(8, 8))
    tokenize_unfinished(folder, folder / "store")
    (folder / "store" / "store.json").unlink()


def tokenize_unfinished(folder, output):
    fields = {"images": str(folder / "images"), "tokenizer": str(folder / "vit"), "rows_per_shard": 2}
    job = TokenizeJob(TokenizeConfig(output_dir=str(output), **fields), "cpu")
    make_shards(job, [job.shards[number] for number in job.prepare()], torch.device("cpu"))
    job.finish()


def read_unfinished(folder, out):
    """Go on with a copy of it: a job may mend what is its own."""
    (out / "store").mkdir()
    for path in all_files(folder / "store"):
        if not path.is_symlink():
            (out / "store" / path.name).write_bytes(path.read_bytes())
    tokenize_unfinished(folder, out / "store")
    read_store(open_store(out / "store"), out)


TARGETS = {
    "store": Target(
        make_store, lambda folder, out: read_store(open_store(folder / "store"), out), weight=4, strict=True
    ),
    "mended store": Target(
        make_subset, lambda folder, out: read_store(open_store(folder / "part"), out), mended=mend_store,
        damaged=lambda folder: [path for path in all_files(folder) if path.suffix != ".json"], weight=8,
    ),
    "unverified store": Target(
        make_store,
        lambda folder, out: read_store(open_store(folder / "store", verify_shards=False), out, verified=False),
        weight=4, mended=mend_store, damaged=shards_and_tables,
    ),
    "windows": Target(
        lambda folder: tiny_segmentation.make_segmentation_store(folder / "store"),
        lambda folder, out: read_store(open_store(folder / "store"), out), mended=mend_store,
        damaged=shards_and_tables, weight=4,
    ),
    "unfinished store": Target(
        make_unfinished, read_unfinished, damaged=lambda folder: all_files(folder / "store"), weight=2
    ),
    "subset": Target(
        make_subset, lambda folder, out: read_store(open_store(folder / "part"), out), damaged=not_shards, weight=3
    ),
    "remote": Target(make_subset, read_remote, weight=3),
    "models": Target(make_models, read_models, weight=5),
    "tokenizers": Target(make_tokenizers, read_tokenizers, weight=4),
    "checkpoints": Target(make_checkpoints, read_checkpoints, weight=4),
    "run": Target(make_run, read_run, weight=3),
    "report": Target(make_report, read_report, weight=1),
    "labels": Target(make_labels, read_labels, lambda folder: [folder / "labels.csv"], weight=4),
    "recipes": Target(make_recipe, read_recipe, weight=1),
    "exchange": Target(make_exchange, read_exchange, of_exchange, weight=4),
    "images": Target(make_images, read_images, of_images, weight=3),
}  # fmt: skip
