"""One attack on all images, by all processes together: what is right and what is changed, once tokenised anew."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seitpp.downstream.attacks import Attack, eight_bit
from seitpp.downstream.straight_through import AttackedPath
from seitpp.runtime.errors import UserError
from seitpp.runtime.processes import Processes
from seitpp.runtime.progress import Progress
from seitpp.tokenizers.sources.decode_ahead import decoded_batches
from seitpp.tokenizers.sources.decoding.resize import resize_of
from seitpp.tokenizers.sources.images import to_float
from seitpp.tokenizers.sources.pixels import quiet_decoding
from seitpp.tokenizers.sources.selected import SelectedImages
from seitpp.tokenizers.sources.source import ImageSource
from seitpp.tokenizers.tokenize import spare_cores
from seitpp.training.random_streams import Draws

if TYPE_CHECKING:
    from accelerate import Accelerator

STREAM = "adversarial start"
"""Name of the random numbers; they are keyed by (seed, restart, row of the image), whatever the budget is."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What one attack came to.

    Attributes:
        images: how many were attacked.
        right: of these, how many are still classified rightly.
        tokens: how many tokens the classifier saw.
        changed: of these, how many are others than those of the clean images.
        broken: images that can't be decoded.
    """

    images: int = 0
    right: int = 0
    tokens: int = 0
    changed: int = 0
    broken: int = 0

    @classmethod
    def of(cls, record: dict[str, Any]) -> "Tally":
        """From a line of metrics.jsonl."""
        return cls(**{field.name: record[field.name] for field in fields(cls)})

    @property
    def record(self) -> dict[str, int]:
        """For a line of metrics.jsonl."""
        return asdict(self)

    @property
    def measures(self) -> dict[str, float]:
        """Metrics, fractions."""
        return {"accuracy": self.right / self.images, "tokens_changed": self.changed / self.tokens}


def attack_images(
    path: AttackedPath, attack: Attack | None, images: ImageSource, rows: np.ndarray, *, seed: int, batch_size: int,
    max_skipped: float, accelerator: "Accelerator", processes: Processes, progress: Progress,
) -> Tally:  # fmt: skip
    """Attack images, each once; what is in memory is a few batches.

    Args:
        path: from pixels to the classifier's logits.
        attack: None: the images as they are.
        images: an ImageSource, labelled.
        rows: which of them, (n,) int64.
        seed: of the random starts.
        batch_size: images of a pass. Batches are the same however many processes there are.
        max_skipped: fraction of `rows` that may fail to decode.
        accelerator: accelerate.Accelerator.
        processes: the launch's.
        progress: counts on by `rows`.
    Returns: the Tally of all processes, on each of them.
    Raises: UserError if too many images can't be decoded, or a logit is not finite.
    """
    places = np.arange(len(rows))
    mine = rows[places // batch_size % processes.count == processes.rank]
    before = progress.done

    def count() -> np.ndarray:
        total = np.zeros(len(fields(Tally)), np.int64)
        batches = _batches(path, SelectedImages(images, mine), batch_size)
        for pixels, chosen, broken in batches:
            total[-1] += len(broken)
            if total[-1] > max_skipped * len(rows):
                place, reason = broken[-1]
                raise UserError(
                    f"{images.where(int(mine[place]))} can't be decoded ({reason}): remove or mend it, or raise "
                    "--max_skipped"
                )
            if chosen:
                positions = torch.from_numpy(mine[chosen])
                labels = torch.from_numpy(images.labels[mine[chosen]].astype(np.int64))
                total[:-1] += _attack_batch(path, attack, pixels, labels.to(path.device), seed, positions)
            progress.update(min(before + len(rows), progress.done + processes.count * (len(chosen) + len(broken))))
        return total

    with quiet_decoding():
        total = processes.agree(count)
    if processes.count > 1:
        total = accelerator.reduce(torch.from_numpy(total).to(path.device)).cpu().numpy()
    tally = Tally(**{field.name: int(number) for field, number in zip(fields(Tally), total, strict=True)})
    if not tally.images or tally.broken > max_skipped * len(rows):
        raise UserError(f"{tally.broken} of {len(rows)} images can't be decoded: mend them, or raise --max_skipped")
    return tally


def _batches(path, mine, batch_size):
    """(pixels (b, 3, H, W) uint8 on the device, places in `mine`, broken ones)."""
    gpu = path.device.type == "cuda"
    resize = resize_of(path.tokenizer.preprocessing)
    with ThreadPoolExecutor(spare_cores()) as threads:
        for pixels, chosen, broken in decoded_batches(
            mine, range(len(mine)), path.tokenizer.image_size, batch_size, threads, resize=resize, pin_memory=gpu
        ):  # fmt: skip
            yield pixels.to(path.device, non_blocking=gpu), chosen, broken


def _attack_batch(
    path: AttackedPath, attack: Attack | None, pixels: Tensor, labels: Tensor, seed: int, positions: Tensor
) -> np.ndarray:
    """(images, right, tokens, changed) of one batch; of several starts that end counts which harms an image most."""
    images = to_float(pixels)
    clean = path.ids(images)
    seen = path.seen(clean)
    if attack is None:
        wrong, changed = _harm(path, clean, labels)[0], torch.zeros_like(labels)
    else:
        ends = []
        for restart in range(attack.starts):
            uniform = Draws(seed, restart, positions).uniform(STREAM, *images.shape[1:]).to(images)
            moved = attack(images, path.gradient(labels), 2 * uniform - 1)
            ids = path.ids(to_float(eight_bit(moved)))
            ends.append((*_harm(path, ids, labels), (path.seen(ids) != seen).sum((1, 2))))
        wrongs, losses, changes = (torch.stack(part) for part in zip(*ends, strict=True))
        worst = (losses.double() + 1e9 * wrongs).argmax(0, keepdim=True)
        wrong, changed = wrongs.gather(0, worst)[0], changes.gather(0, worst)[0]
    return np.array([len(labels), int((~wrong).sum()), seen.numel(), int(changed.sum())])


def _harm(path, ids, labels):
    """(whether the answer is wrong, its loss), (b,) each."""
    logits = path.classify(ids)
    loss = F.cross_entropy(logits, labels, reduction="none")
    if not bool(loss.isfinite().all()):
        raise UserError("a classifier answers nothing finite: its training diverged")
    return logits.argmax(1) != labels, loss
