"""A store that is being made: what of, in which shards, which of them are missing, and what makes it whole."""

import hashlib
import re
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json, remove_unfinished, write_json
from seitpp.runtime.locks import lock_folder
from seitpp.runtime.ownership import is_job
from seitpp.runtime.schema import read_described, record
from seitpp.tokenizers.code_shards import code_shards
from seitpp.tokenizers.segmentation.open_windows import open_windows
from seitpp.tokenizers.shard_job import ShardJob
from seitpp.tokenizers.shard_rows import StoreRows, image_rows
from seitpp.tokenizers.sources.images import ImageFolder
from seitpp.tokenizers.sources.in_table import ImagesInTable, label_by_table
from seitpp.tokenizers.sources.label_table import read_label_table
from seitpp.tokenizers.sources.listing.left_out import LeftOut, sentence, write_skipped
from seitpp.tokenizers.sources.remote.addresses import is_url
from seitpp.tokenizers.sources.source import ImageSource, open_source
from seitpp.tokenizers.store_place.kept_listing import LISTING_FILE, drop_listing, keep_listing, open_listed
from seitpp.tokenizers.store_place.place import store_place
from seitpp.tokenizers.tokenizer import Tokenizer, load_tokenizer
from seitpp.tokens.format.manifest import TABLES_FILE
from seitpp.tokens.one_dimensional import described_tokenizer
from seitpp.tokens.store import open_store, write_manifest

if TYPE_CHECKING:
    from seitpp.tokenizers.tokenize import TokenizeConfig

_UNFINISHED_BEFORE = re.compile(r"\.(shard-\d{5,}\.(arrow|json)|(store|job)\.json|skipped\.csv)\.\d+\.tmp")
"""What versions called what they had half written, before seitpp.runtime.files locked it."""


class TokenizeJob:
    """A store to be made. Opening it writes nothing.

    Args:
        config: a TokenizeConfig.
        device: where the tokenizer runs.
        images: an ImageSource to read instead of `config.images`.
        tokenizer: a Tokenizer on `device`, instead of loading `config.tokenizer`.
        about: what else the pixels depend on, such as a corruption's name and seed: kept in job.json, so that a store
            of other pixels is refused. A dict that JSON can hold.
        store_rows: what rows `images` become; None: a row each.
        listed: whether another process of this job has listed images behind a URL already: its list is read.

    Attributes:
        place: where the store's files go.
        folder: where they are made.
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
        store_rows: StoreRows | None = None,
        listed: bool = False,
    ):
        self.config = config
        self.place = store_place(config.output_dir)
        self.folder = self.place.folder
        like = open_store(config.like) if config.like else None
        self.tokenizer = tokenizer if tokenizer is not None else load_tokenizer(
            config.tokenizer, device, resize=config.resize, fingerprint=like.tokenizer["fingerprint"] if like else None
        )  # fmt: skip
        if images is None and config.targets == "masks":
            images, store_rows = open_windows(config, self.tokenizer)
        self.listing = None
        if images is None:
            images, self.listing = _open_images(config, like and like.classes, self.place, listed=listed)
        self.images = images
        lists = self.images.label_lists if isinstance(self.images, ImagesInTable) else None
        self.store_rows = image_rows(self.tokenizer, lists) if store_rows is None else store_rows
        listed_images = {"images listed": self.listing.digest} if self.listing is not None else {}
        self.about = {**self.store_rows.about, **listed_images, **(about or {})}
        self.rows_per_shard = config.rows_per_shard or self.store_rows.images_per_shard
        self._unlock: weakref.finalize[[], TokenizeJob] | None = None
        starts = range(0, len(self.images), self.rows_per_shard)
        ends = [min(start + self.rows_per_shard, len(self.images)) for start in starts]
        self.shards = [
            ShardJob(self.folder, number, range(start, end), self.place)
            for number, (start, end) in enumerate(zip(starts, ends, strict=True))
        ]

    def prepare(self) -> list[int]:
        """Claim the folder for this job and list what is missing; for one process, before any other writes.

        The folder is locked until `finish`, or the end of the process.

        Returns: numbers of the shards to make.
        Raises: UserError if the folder holds a store of other input or something else, is where the images lie, or is
            being written by another process.
        """
        self.place.claim(self.config)
        self._unlock = weakref.finalize(self, lock_folder(self.folder, remove=True).release)
        self.place.fetch(anew=True)
        identity = {
            "tokenizer": self._tokenizer,
            "images": len(self.images),
            "keys": hashlib.sha256("\n".join(self.images.keys).encode()).hexdigest(),
            "labels": hashlib.sha256(self.images.labels.astype("<i4").tobytes()).hexdigest(),
            "rows_per_shard": self.rows_per_shard,
            "coding": self.config.coding,
            "classes": self.images.classes,
            **self.about,
        }
        file = self.folder / "job.json"
        if self.config.resume == "none":
            for name in _files_of_job(self.folder):
                self.place.remove(name)
        _remove_unfinished(self.folder)
        if file.exists():
            former = read_described(file, record({}), "remove it, or make the store anew with --resume none")
            other = [key for key in identity if former.get(key, identity[key]) != identity[key]]
            if other:
                raise UserError(
                    f"{self.place.name} holds a store of other input ({other[0]} differs): choose another "
                    f"--output_dir, or --resume none to make it anew"
                )
        results = [shard.result() for shard in self.shards]
        self._refuse_other_images(results)
        write_json(file, identity)
        self.place.publish(file.name)
        if self.listing is not None:
            keep_listing(self.config, self.place, self.listing)
        return [shard.number for shard, result in zip(self.shards, results, strict=True) if result is None]

    def _refuse_other_images(self, results: list[dict[str, Any] | None]) -> None:
        """Of the same names, but with other sizes than those that shards were made of."""
        for shard, result in zip(self.shards, results, strict=True):
            if result is not None and not shard.is_of(self.images, result):
                raise UserError(
                    f"{self.place.name} holds a store of other input (images of {shard.path.name} have other sizes "
                    f"now): choose another --output_dir, or --resume none to make it anew"
                )

    def too_many(self, skipped: int) -> bool:
        """Whether so many skipped images are more than the job allows."""
        return skipped > self.config.max_skipped * len(self.images)

    def finish(self) -> str:
        """Write skipped.csv and the manifest.

        Returns: a line that says what the store holds.
        Raises: UserError if too many images were skipped; the shards of the others stay.
        """
        self.place.fetch(anew=False)
        results = [shard.result() for shard in self.shards]
        made = [(shard, result) for shard, result in zip(self.shards, results, strict=True) if result is not None]
        skipped = [entry for _, result in made for entry in result["skipped"]]
        broken = [LeftOut(entry["file"], "not decodable", entry["reason"]) for entry in skipped]
        write_skipped(self.folder / "skipped.csv", [*broken, *self.images.left_out])
        self.place.publish("skipped.csv")
        if self.too_many(len(skipped)):
            for shard, result in made:
                if result["skipped"]:  # so that the same command reads the mended images
                    self.place.remove(shard.sidecar.name)
            first = self.images.where(self.images.keys.index(skipped[0]["file"]))
            raise UserError(
                f"{len(skipped)} of {len(self.images)} images can't be decoded (first: {first}: "
                f"{skipped[0]['reason']}; all in {self.place.name}/skipped.csv): mend them, or raise --max_skipped"
            )
        if len(made) < len(self.shards):
            gone = next(shard for shard, result in zip(self.shards, results, strict=True) if result is None)
            raise UserError(f"{gone.path} was made but is not there: all processes must see one and the same folder")
        tables = None
        if self.config.coding == "auto":
            tables = code_shards(self.folder, self.shards, self.tokenizer.codebook_size, self.store_rows.grid)
            made = [(shard, result) for shard, _ in made if (result := shard.result()) is not None]
        write_manifest(
            self.folder,
            tables=tables,
            tokenizer=self._tokenizer,
            codebook=self.tokenizer.codebook.detach().cpu(),
            lookup=self.tokenizer.lookup,
            grid=self.store_rows.grid,
            preprocessing=self.store_rows.preprocessing,
            classes=self.images.classes,
            shards=[
                {key: value for key, value in result.items() if key not in ("skipped", "sizes", "coding")}
                for _, result in made
            ],
            **self.store_rows.manifest,
        )
        named = [TABLES_FILE] if tables is not None else []
        self.place.publish(*named, "codebook.safetensors", "store.json")
        if self.listing is not None:
            drop_listing(self.place, self.listing)
        self.place.close()
        if self._unlock is not None:
            self._unlock()
        self.place.forget()
        kept = len(self.images) - len(skipped)
        windows = sum(result["rows"] for _, result in made)
        what = f"{windows} windows" if "windows" in self.store_rows.manifest else f"{len(self.images.classes)} classes"
        said = f"{self.place.name}: {kept} images, {what}, {len(skipped)} skipped"
        return said + sentence(self.images.left_out, f"{self.place.name}/skipped.csv")

    @property
    def notices(self) -> list[str]:
        """What a user should know of the images before the work begins, lines."""
        return self.images.notices if isinstance(self.images, ImagesInTable | ImageFolder) else []

    @property
    def _tokenizer(self):
        return described_tokenizer(self.tokenizer)


def _open_images(config, classes, place, *, listed):
    """The images of a job, and what was listed of them where they lie behind a URL."""
    listing = None
    by_folder = config.labels is None
    if is_url(config.images):
        images, listing = open_listed(config, classes if by_folder else None, place, listed=listed)
    else:
        dataset = {"split": config.split, "root": config.root, "image_column": config.image_column}
        if by_folder:
            dataset["label_column"] = config.label_column
        level = config.class_level if by_folder else None
        images = open_source(config.images, classes if by_folder else None, class_level=level, **dataset)
    if not by_folder:
        table = read_label_table(config, several=config.multi_label)
        images = label_by_table(
            images, table, where=config.images, classes=classes, like=config.like, several=config.multi_label
        )
    return images, listing


def remove_job(folder: Path) -> None:
    """Remove what `seitpp tokenize` wrote into a folder: what its job.json speaks of, which goes last.

    Args:
        folder: of a job; in any other, nothing is removed.
    """
    for name in _files_of_job(folder):
        (folder / name).unlink(missing_ok=True)


def _files_of_job(folder: Path) -> list[str]:
    """What the job.json of a folder speaks of, itself last; nothing in a folder of another kind."""
    if not is_job(folder):
        return []
    job = read_json(folder / "job.json")
    shards = [ShardJob(folder, number, range(0)) for number in range(-(-job["images"] // job["rows_per_shard"]))]
    files = [path.name for shard in shards for path in (shard.sidecar, shard.path)]
    return ["store.json", *files, "codebook.safetensors", TABLES_FILE, LISTING_FILE, "skipped.csv", "job.json"]


def _remove_unfinished(folder):
    """Remove what killed processes had half written; the folder is locked."""
    remove_unfinished(folder)
    for path in folder.iterdir():
        if _UNFINISHED_BEFORE.fullmatch(path.name):
            path.unlink()
