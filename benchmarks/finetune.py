"""How long a step of fine-tuning takes, and how fast features come out of an encoder.

    python -m benchmarks.finetune                     ViT-B/2 of the papers, one thread of a CPU, or a GPU
    python -m benchmarks.finetune --quick             all of it with tiny models, in seconds
    python -m benchmarks.finetune --profile FILE      kernels by time, as a table

The step is that of configs/finetune/vit_base.yaml: ColorAdapt and Emb-Noise, TokenAdapt (random weights, the published
widths) on one half of a batch and crops on the other, CutMix and Mixup, forward, backward and AdamW. Features are those
of `seitpp.finetune.probing`, the mean over patches, for probes: a whole store, with its reading and without
augmentation, into a file. All else is as in benchmarks/pretrain.py.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks import limits
from benchmarks.measures import per_second, report
from benchmarks.steps import (
    measure_parts,
    measure_throughput,
    parse_arguments,
    report_limits,
    report_parts,
    report_profile,
)
from benchmarks.synthetic import CHANNELS, CLASSES, CODES, GRID, VIEW, make_store
from benchmarks.token_step import TokenStep
from seitpp.finetune.classifier import Classifier
from seitpp.finetune.probing.feature_file import feature_file
from seitpp.finetune.probing.features import FrozenEncoder, Layout, encoder_recipe
from seitpp.finetune.train import FinetuneConfig
from seitpp.mtm.encoder import EncoderConfig, TokenEncoder
from seitpp.mtm.stems import PatchStem
from seitpp.runtime.command import parse
from seitpp.runtime.devices import compile_in_place
from seitpp.runtime.processes import Processes
from seitpp.tokens.store import open_store
from seitpp.training.optimizer import make_adamw, parameter_groups, set_learning_rate
from seitpp.training.random_streams import seed_dropout


@dataclass
class Step(TokenStep):
    """A step of fine-tuning in parts, as `seitpp.finetune.train` and `seitpp.training.loop` put it together."""

    def __post_init__(self):
        words = ["--config", "vit_base", "--store", "", "--eval_store", "", "--output_dir", ""]
        self.config = config = parse(FinetuneConfig, words, recipes="finetune")
        self.shape = EncoderConfig(width=24, depth=2, heads=3) if self.quick else config.encoder
        self.open_inputs(config.augment)
        model = Classifier(
            self.shape, view=VIEW, codebook_size=CODES, embedding_dim=CHANNELS, classes=CLASSES,
            drop_path=config.drop_path,
        )  # fmt: skip
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        groups = parameter_groups(
            model, weight_decay=config.weight_decay, layer_of=model.layer_of, layer_decay=config.layer_decay,
            layers=model.layers,
        )  # fmt: skip
        optimizer = make_adamw(groups, config)
        set_learning_rate(optimizer, 1e-5)
        self.trained, self.optimizer = self.accelerator.prepare(model.train(), optimizer)
        if self.compiled:
            compile_in_place(self.trained)

    def run(self, index, mark=lambda part: None):
        """One step; `mark(part)` is called after each part. Returns the loss."""
        batch = self.batches(index)
        mark("loader")
        seed_dropout(0, index, 0)
        views, targets = self.augment.mixed(
            batch.ids, batch.labels, self.chance.at(index, batch.positions), classes=CLASSES
        )
        mark("augmentation")
        logits = self.trained(views)
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=self.config.label_smoothing)
        mark("forward")
        self.accelerator.backward(loss)
        mark("backward")
        self.optimizer.step()
        self.optimizer.zero_grad()
        mark("update")
        return loss.detach()

    @property
    def flops(self):
        """Operations counted of a step on an image."""
        return sum(work.operations for work in self.work().values())

    def work(self):
        """What an image costs at the least in each part but the loader, {part: limits.Work}."""
        size = 2 if self.precision == "bf16" else 4
        shape = {"grid": GRID, "view": VIEW, "channels": CHANNELS, "codes": CODES}
        network = encoder_network(self.shape)
        return {
            "augmentation": limits.augmentation(self.adapt_shape, **shape, size=size),
            "forward": network.forward(size),
            "backward": network.backward(size),
            "update": limits.update(self.parameters, clipped=False) * (1 / self.batch_size),
        }


def encoder_network(config):
    """The encoder of an EncoderConfig on an image, as a limits.Network; the head's share is one in twenty thousand."""
    return limits.encoder(config, view=VIEW, channels=CHANNELS)


def main():
    """Print the measures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments = parse_arguments(parser, multiple=4)
    torch.set_num_threads(1)
    size, count = arguments.batch_size, arguments.steps
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        make_store(folder / "store", arguments.rows)
        step = Step(folder, size, arguments.precision, arguments.quick, arguments.compile)
        report("parameters trained", step.parameters / 1e6, "million")
        for index in range(arguments.warm):
            step.run(index)
        seconds = measure_parts(step, count)
        report_parts("fine-tuning", seconds, size)
        rate = measure_throughput(step, count)
        products = report_limits(step, seconds, rate)
        if arguments.profile:
            report_profile(arguments.profile, step, count)
        store = open_store(make_store(folder / "features", size * count))
        measure_features(step.shape, store, size, step.accelerator, products)


def measure_features(config, store, batch_size, accelerator, products):
    """Images a second of all of a store, and what share that is of a rate of matrix products."""
    encoder = TokenEncoder(config, PatchStem(config, codebook_size=CODES, embedding_dim=CHANNELS), view=VIEW)
    frozen = FrozenEncoder(encoder, store, device=accelerator.device, autocast=accelerator.autocast)
    recipe = encoder_recipe(frozen, store, Layout(), precision=accelerator.mixed_precision)

    def encode():
        with tempfile.TemporaryDirectory() as folder:
            feature_file(folder, recipe, rows=len(store), batch_size=batch_size, team=Processes(accelerator))

    encode()  # warm
    rate = per_second(encode, len(store), rounds=3)
    operations = encoder_network(config).operations
    report("features", rate, "images/s", seconds_per_image=1 / rate)
    report("features: operations counted", operations / 1e9, "GFLOP/image")
    report("features: of the rate of matrix products", 100.0 * rate * operations / products, "%")


if __name__ == "__main__":
    main()
