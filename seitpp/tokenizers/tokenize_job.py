"""A store that is being made: what of, in which shards, which of them are missing, and what makes it whole."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from seitpp.runtime.errors import UserError
from seitpp.runtime.files import replacing, write_json
from seitpp.runtime.schema import read_described, record
from seitpp.tokenizers.shard_job import ShardJob
from seitpp.tokenizers.sources.source import ImageSource, open_source
from seitpp.tokenizers.tokenizer import Tokenizer, load_tokenizer
from seitpp.tokens.store import open_store, write_manifest

if TYPE_CHECKING:
    from seitpp.tokenizers.tokenize import TokenizeConfig


class TokenizeJob:
    """A store to be made. Opening it writes nothing.

    Args:
        config: a TokenizeConfig.
        device: where the tokenizer runs.
        images: an ImageSource to read instead of `config.images`.
        tokenizer: a Tokenizer on `device`, instead of loading `config.tokenizer`.
        about: what else the pixels depend on, such as a corruption's name and seed: kept in job.json, so that a store
            of other pixels is refused. A dict that JSON can hold.

    Attributes:
        images: an ImageSource.
        tokenizer: a Tokenizer.
        shards: ShardJobs, all of the store's.
    """

    def __init__(
        self,
        config: "TokenizeConfig",
        device: torch.device | str,
        *,
        images: ImageSource | None = None,
        tokenizer: Tokenizer | None = None,
        about: dict[str, Any] | None = None,
    ):
        self.config = config
        self.folder = Path(config.output_dir)
        self.tokenizer = load_tokenizer(config.tokenizer, device) if tokenizer is None else tokenizer
        self.images = _open_images(config) if images is None else images
        self.about = about or {}
        starts = range(0, len(self.images), config.rows_per_shard)
        ends = [min(start + config.rows_per_shard, len(self.images)) for start in starts]
        self.shards = [
            ShardJob(self.folder, number, range(start, end))
            for number, (start, end) in enumerate(zip(starts, ends, strict=True))
        ]

    def prepare(self) -> list[int]:
        """Claim the folder for this job and list what is missing; for one process, before any other writes.

        Returns: numbers of the shards to make.
        Raises: UserError if the folder holds a store of other input.
        """
        identity = {
            "tokenizer": self._tokenizer,
            "images": len(self.images),
            "keys": hashlib.sha256("\n".join(self.images.keys).encode()).hexdigest(),
            "labels": hashlib.sha256(self.images.labels.astype("<i4").tobytes()).hexdigest(),
            "rows_per_shard": self.config.rows_per_shard,
            "classes": self.images.classes,
            **self.about,
        }
        file = self.folder / "job.json"
        if self.config.resume == "none":
            for pattern in ("shard-*", "store.json", "job.json", "skipped.csv"):
                _remove(self.folder.glob(pattern))
        _remove(self.folder.glob(".*.tmp"))  # of a process that was killed while it wrote
        if file.exists():
            former = read_described(file, record({}), "remove it, or make the store anew with --resume none")
            other = [key for key in identity if former.get(key, identity[key]) != identity[key]]
            if other:
                raise UserError(
                    f"{self.folder} holds a store of other input ({other[0]} differs): choose another --output_dir, "
                    f"or --resume none to make it anew"
                )
        write_json(file, identity)
        return [shard.number for shard in self.shards if shard.result() is None]

    def too_many(self, skipped: int) -> bool:
        """Whether so many skipped images are more than the job allows."""
        return skipped > self.config.max_skipped * len(self.images)

    def finish(self) -> str:
        """Write skipped.csv and the manifest.

        Returns: a line that says what the store holds.
        Raises: UserError if too many images were skipped; the shards of the others stay.
        """
        results = [shard.result() for shard in self.shards]
        made = [(shard, result) for shard, result in zip(self.shards, results, strict=True) if result is not None]
        skipped = [entry for _, result in made for entry in result["skipped"]]
        with replacing(self.folder / "skipped.csv") as temporary:
            pd.DataFrame(skipped, columns=["file", "reason"]).to_csv(temporary, index=False)
        if self.too_many(len(skipped)):
            for shard, result in made:
                if result["skipped"]:  # so that the same command reads the mended images
                    shard.sidecar.unlink()
            first = self.images.where(self.images.keys.index(skipped[0]["file"]))
            raise UserError(
                f"{len(skipped)} of {len(self.images)} images can't be decoded (first: {first}: "
                f"{skipped[0]['reason']}; all in {self.folder / 'skipped.csv'}): mend them, or raise --max_skipped"
            )
        if len(made) < len(self.shards):
            gone = next(shard for shard, result in zip(self.shards, results, strict=True) if result is None)
            raise UserError(f"{gone.path} was made but is not there: all processes must see one and the same folder")
        write_manifest(
            self.folder,
            tokenizer=self._tokenizer,
            codebook=self.tokenizer.codebook.detach().cpu(),
            lookup=self.tokenizer.lookup,
            grid=self.tokenizer.grid,
            preprocessing=self.tokenizer.preprocessing,
            classes=self.images.classes,
            shards=[{key: value for key, value in result.items() if key != "skipped"} for _, result in made],
        )
        kept = len(self.images) - len(skipped)
        return f"{self.folder}: {kept} images, {len(self.images.classes)} classes, {len(skipped)} skipped"

    @property
    def _tokenizer(self):
        return {"name": self.tokenizer.name, "fingerprint": self.tokenizer.fingerprint}


def _open_images(config):
    classes = open_store(config.like).classes if config.like else None
    return open_source(
        config.images, classes, split=config.split, root=config.root, image_column=config.image_column,
        label_column=config.label_column,
    )  # fmt: skip


def _remove(paths):
    for path in paths:
        path.unlink(missing_ok=True)
