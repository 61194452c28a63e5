"""Train a grid of heads, choose one on a held-out part of the training set, measure that one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from seitpp.finetune.labelled import LabelledRows
from seitpp.finetune.probing.feature_set import Device, Examples
from seitpp.finetune.probing.features import FrozenEncoder
from seitpp.finetune.probing.heads import Head, Heads, HeadsConfig, head_groups, heads_loss
from seitpp.finetune.probing.hits import Hits
from seitpp.mtm.augmentation.augment import Augment
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.run_folder import open_run
from seitpp.runtime.schema import record
from seitpp.runtime.weights import load_weights, save_weights
from seitpp.tokens.loader import TrainingBatches, evaluation_batches
from seitpp.tokens.views import centre
from seitpp.training.batched_draws import BatchedDraws
from seitpp.training.config import TrainConfig
from seitpp.training.fit import batch_layout, fit

if TYPE_CHECKING:
    from accelerate import Accelerator


class ExampleSource(Protocol):
    """Where features and labels of rows come from: a FeatureSet reads them, a ViewSet makes them anew."""

    labelled: LabelledRows

    def training(self, layout: dict[str, Any]) -> Callable[[int, int], Examples]:
        """Shuffled batches, a function of (step, micro-step)."""
        ...

    def chunks(self, size: int, *, device: Device, rank: int, world_size: int) -> Iterator[Examples]:
        """Every row once, in order, divided over processes."""
        ...


@dataclass(frozen=True, eq=False)
class ViewSet:
    """Features that an encoder makes while heads learn: of augmented views, or because there are too many to keep.

    Attributes:
        frozen: the FrozenEncoder.
        labelled: LabelledRows.
        features: function from ids of views, (b, h, w), to features.
        augment: makes the views of training; None: the centre, as in evaluation.
    """

    frozen: FrozenEncoder
    labelled: LabelledRows
    features: Callable[[Tensor], Tensor]
    augment: Augment | None = None

    def training(self, layout: dict[str, Any]) -> Callable[[int, int], Examples]:
        """Shuffled batches of views, a function of (step, micro-step)."""
        batches = TrainingBatches(self.labelled.store, **layout, rows=self.labelled.rows, labels=self.labelled.labels)
        streams = BatchedDraws(layout["seed"])

        def batch_at(step, micro):
            batch = batches(step, micro)
            if self.augment is None:
                return self.features(centre(batch.ids, self.frozen.view)), batch.labels
            draws = streams.at(step, batch.positions)
            views, targets = self.augment.mixed(batch.ids, batch.labels, draws, classes=len(self.labelled.classes))
            return self.features(views), targets

        return batch_at

    def chunks(self, size: int, *, device: Device, rank: int = 0, world_size: int = 1) -> Iterator[Examples]:
        """Every row once, in order, its centre; process `rank` of `world_size` gets every world_size-th chunk."""
        for batch in evaluation_batches(
            self.labelled.store, size, device=device, rank=rank, world_size=world_size, rows=self.labelled.rows,
            labels=self.labelled.labels,
        ):  # fmt: skip
            yield self.features(centre(batch.ids, self.frozen.view)), batch.labels


@dataclass(frozen=True, kw_only=True)
class HeadTraining(TrainConfig):
    """Training of a grid of heads: a run of its own within that of the probe."""

    grid: tuple[dict[str, Any], ...] = field(default=())
    """the heads"""
    made_of: dict[str, Any] = field(default_factory=dict)
    """what their inputs are"""


def train_heads(
    folder: Path, make: Callable[[], Heads], source: ExampleSource, config: HeadTraining, *, title: str
) -> Heads:
    """Train all heads at once in a run folder; a finished run is read, not trained again.

    Args:
        folder: of the run.
        make: builds the heads as they start.
        source: what they learn from.
        config: a HeadTraining.
        title: what the progress line says.
    Returns: the heads, in one piece, in evaluation mode on the device.
    """
    accelerator = make_accelerator(config.mixed_precision)
    run = open_run(config, accelerator, stage="finetune.probe/heads")
    if not run.finished:
        torch.manual_seed(config.seed)
        heads = make()
        fit(
            run, accelerator, heads, title=title, samples=len(source.labelled.rows), groups=head_groups(heads),
            batches=lambda config: source.training(batch_layout(config, accelerator)), step=_step,
            save=lambda path, model: save_weights(path, model.state_dict(), {"heads": list(config.grid)}),
        )  # fmt: skip
        run.finish({"heads": len(config.grid)})
        accelerator.wait_for_everyone()
    trained = make()
    trained.load_state_dict(load_weights(folder, record({}))[0])
    return trained.to(accelerator.device).eval()


def _step(model, batch, index):
    features, targets = batch
    logits = model(features)
    loss = heads_loss(logits, targets)
    return loss, {"loss_a_head": loss.detach() / sum(each.shape[1] for each in logits)}


@torch.no_grad()
def measure_heads(
    heads: Heads, source: ExampleSource, *, batch_size: int, accelerator: "Accelerator"
) -> tuple[Tensor, Tensor]:
    """Accuracy and cross-entropy of every head, each row once, over all processes: (g,) and (g,) float64 on the CPU."""
    sums = torch.zeros(2, len(heads.grid), device=accelerator.device)
    layout = {"device": accelerator.device, "rank": accelerator.process_index, "world_size": accelerator.num_processes}
    for features, targets in source.chunks(batch_size, **layout):
        logits = heads(features)
        sums[0] += torch.cat([(each.argmax(dim=2) == targets[:, None]).sum(0) for each in logits])
        sums[1] += torch.cat([_cross_entropies(each, targets) for each in logits])
    if accelerator.num_processes > 1:
        sums = accelerator.reduce(sums)
    accuracy, cross_entropy = (sums.double() / len(source.labelled.rows)).cpu()
    return accuracy, cross_entropy


@torch.no_grad()
def measure_head(
    heads: Heads, place: int, source: ExampleSource, *, batch_size: int, accelerator: "Accelerator"
) -> dict[str, float]:
    """What one head of a grid answers, each row once, over all processes: {"accuracy", "mean_per_class"}."""
    hits = Hits(len(source.labelled.classes), 1, accelerator.device)
    layout = {"device": accelerator.device, "rank": accelerator.process_index, "world_size": accelerator.num_processes}
    for features, targets in source.chunks(batch_size, **layout):
        answers = torch.cat([each.argmax(dim=2) for each in heads(features)], dim=1)
        hits.add(answers[:, place : place + 1], targets)
    return hits.measures(accelerator)[0]


def _cross_entropies(logits, targets):
    """Sum over the batch, head by head: (b, g, c) to (g,)."""
    wanted = repeat(targets, "b -> b g", g=logits.shape[1])
    return F.cross_entropy(rearrange(logits, "b g c -> b c g"), wanted, reduction="none").sum(0)


def choose_head(grid: Sequence[Head], accuracy: Tensor, cross_entropy: Tensor) -> int:
    """Place of the head that answers most rows rightly; of equals, that of the least cross-entropy."""
    return max(range(len(grid)), key=lambda place: (float(accuracy[place]), -float(cross_entropy[place])))


@dataclass(frozen=True)
class HeadSources:
    """What a grid of heads learns from and is judged on.

    Attributes:
        fit_part: part of the training set to learn from.
        held_out: the rest of it, to choose on.
        train: both together, to learn from once a head is chosen.
        test: to measure the chosen head on.
    """

    fit_part: ExampleSource
    held_out: ExampleSource
    train: ExampleSource
    test: ExampleSource


def probe_with_heads(
    folder: Path, make: Callable[[Sequence[Head]], Heads], grid: Sequence[Head], sources: HeadSources,
    config: HeadsConfig, *, accelerator: "Accelerator", made_of: dict[str, Any], title: str, **stage: Any,
) -> tuple[dict[str, float], dict[str, Any]]:  # fmt: skip
    """Train a grid, choose a head on the held-out part, train it on all training rows, measure it on the test set.

    Args:
        folder: where the runs of the trainings lie.
        make: builds heads as they start.
        grid: list of Head.
        sources: HeadSources.
        config: a HeadsConfig.
        accelerator: accelerate.Accelerator.
        made_of: what tells the inputs from others, for the run folders.
        title: what progress lines say.
        stage: fields of the stage's configuration that trainings share: seed, resume, mixed_precision.
    Returns: ({"accuracy", "mean_per_class"} on the test set, {"grid", "choice", "held_out"} for the summary).
    """
    measure = {"batch_size": config.batch_size, "accelerator": accelerator}

    def trained(name, chosen, source):
        training = _training(folder / name, chosen, source, config, accelerator, made_of, stage)
        return train_heads(folder / name, lambda: make(chosen), source, training, title=f"{title}, {name}")

    heads = trained("grid", grid, sources.fit_part)
    accuracy, cross_entropy = measure_heads(heads, sources.held_out, **measure)
    place = choose_head(grid, accuracy, cross_entropy)
    if config.refit:
        heads = trained("chosen", [grid[place]], sources.train)
    measured = measure_head(heads, 0 if config.refit else place, sources.test, **measure)
    summary = {
        "grid": asdict(config),
        "choice": grid[place].described,
        "held_out": [
            {**head.described, "accuracy": float(right), "cross_entropy": float(loss)}
            for head, right, loss in zip(grid, accuracy, cross_entropy, strict=True)
        ],
    }
    return measured, summary


def _training(folder, grid, source, config, accelerator, made_of, stage):
    """The HeadTraining of a grid; its batch is at most what all processes find rows for, in fours for mixing."""
    fits = len(source.labelled.rows) // accelerator.num_processes
    fits = fits // 4 * 4 if fits >= 4 else fits
    return HeadTraining(
        output_dir=str(folder), batch_size=max(1, min(config.batch_size, fits)), epochs=config.epochs,
        steps=config.steps, blr=1.0, betas=(0.9, 0.999), eval_every=0, save_every=2000, keep_checkpoints=1, trackers=(),
        grid=tuple(each.described for each in grid), made_of=made_of, **stage,
    )  # fmt: skip
