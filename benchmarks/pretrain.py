"""How long a step of pre-training takes, where its time goes, and how far it is from what the device can do.

    python -m benchmarks.pretrain                           ViT-B/2 of the papers, one thread of a CPU, or a GPU
    python -m benchmarks.pretrain --quick                   all of it with tiny models, in seconds
    python -m benchmarks.pretrain --compile --profile FILE  under torch.compile; kernels by time, as a table
    python -m benchmarks.pretrain --reference CHECKOUT --reference_path FOLDER    beside the published step

A step is all of it: a batch of a 32 x 32 store, TokenAdapt (random weights, the published widths) on one half of it and
crops on the other, masks, forward, backward, clipping and AdamW; only log lines and the watch for a loss that is not
finite are left out. A CPU takes batches of 8 in float32; a GPU 128 in bf16, 100 steps. Of several steps the quickest
counts, each part by itself and the whole by itself, as other processes only ever add to them; "steps in a row" are all
of them together, without waiting for the device in between.

A limit is counted, see benchmarks/limits.py, and divided by rates of products and copies measured in the same run; the
share says how much of a measured time it is.

On a CPU `--precision no` leaves products to torch's default library, as the published step does; `auto` is what the
stages do (see training/devices.py).

`--reference` names a checkout of github.com/naver-ai/seit, whose step then runs in a process of its own on the same
rows, by turns with ours; see benchmarks/published_pretrain.py. `--reference_path` is a folder with the timm that it
needs: pip install --target FOLDER --no-deps timm==0.5.4
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange

from benchmarks import limits
from benchmarks.measures import report, report_ratio
from benchmarks.steps import (
    least,
    measure_parts,
    measure_throughput,
    parse_arguments,
    report_limits,
    report_parts,
    report_profile,
)
from benchmarks.synthetic import CHANNELS, CODES, GRID, VIEW, make_store
from benchmarks.token_step import TokenStep
from seitpp.mtm.augmentation.augment import AugmentConfig
from seitpp.mtm.cost import training_flops
from seitpp.mtm.encoder import EncoderConfig
from seitpp.mtm.masking import MaskConfig, sample_mask_ratio, sample_masks
from seitpp.mtm.model import DecoderConfig, MaskedTokenModel, ModelConfig
from seitpp.mtm.pretrain import PretrainConfig
from seitpp.runtime.devices import compile_in_place
from seitpp.tokens.exchange import published
from seitpp.tokens.store import open_store
from seitpp.training.optimizer import make_adamw, parameter_groups, set_learning_rate
from seitpp.training.random_streams import seed_dropout
from seitpp.training.speed import count_flops

TINY = ModelConfig(encoder=EncoderConfig(width=24, depth=2, heads=3), decoder=DecoderConfig(width=16, depth=1, heads=2))


@dataclass
class Step(TokenStep):
    """A step of pre-training in parts, as `seitpp.mtm.pretrain` and `seitpp.training.loop` put it together."""

    def __post_init__(self):
        self.open_inputs(AugmentConfig())
        self.config = PretrainConfig(output_dir="", store="", batch_size=self.batch_size, clip_grad=3.0)
        self.mask, self.shape = MaskConfig(), TINY if self.quick else ModelConfig()
        model = MaskedTokenModel(self.shape, view=VIEW, codebook_size=CODES, embedding_dim=CHANNELS)
        self.patches = math.prod(model.encoder.patch_grid)
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.flops = training_flops(model, self.mask) + 0.5 * adapt_flops(self.adapt)
        optimizer = make_adamw(parameter_groups(model, weight_decay=self.config.weight_decay), self.config)
        set_learning_rate(optimizer, 1e-5)
        self.trained, self.optimizer = self.accelerator.prepare(model.train(), optimizer)
        if self.compiled:
            compile_in_place(self.trained)

    def run(self, index, mark=lambda part: None):
        """One step; `mark(part)` is called after each part. Returns the loss."""
        batch = self.batches(index)
        mark("loader")
        seed_dropout(0, index, 0)
        draws = self.chance.at(index, batch.positions)
        ids = self.augment(batch.ids, draws)
        mark("augmentation")
        loss, _ = self.trained(ids, sample_masks(self.mask, draws, self.patches))
        mark("forward")
        self.accelerator.backward(loss)
        mark("backward")
        self.accelerator.clip_grad_norm_(self.trained.parameters(), self.config.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad()
        mark("update")
        return loss.detach()

    def networks(self):
        """(encoder, decoder and head) on an image at the median mask ratio, as a limits.Network each."""
        masked, dropped = self.mask.counts(sample_mask_ratio(self.mask, 0.5), self.patches)
        seen = {"view": VIEW, "channels": CHANNELS, "kept": self.patches - dropped}
        return (
            limits.encoder(self.shape.encoder, **seen),
            limits.decoder(self.shape, codes=CODES, masked=masked, **seen),
        )

    def work(self):
        """What an image costs at the least in each part but the loader, {part: limits.Work}."""
        size = 2 if self.precision == "bf16" else 4
        encoder, decoder = self.networks()
        shape = {"grid": GRID, "view": VIEW, "channels": CHANNELS, "codes": CODES}
        return {
            "augmentation": limits.augmentation(self.adapt_shape, **shape, size=size),
            "forward": (encoder + decoder).forward(size),
            "backward": (encoder + decoder).backward(size),
            "update": limits.update(self.parameters, clipped=True) * (1 / self.batch_size),
        }


def adapt_flops(adapt):
    """Operations of TokenAdapt's f and g on an image."""
    shape = adapt.to("meta")
    embeddings = torch.empty(1, CHANNELS, *GRID, device="meta")
    return count_flops(lambda: shape(embeddings, lambda features: features[..., : 2 * VIEW[0], : 2 * VIEW[1]]))


def main():
    """Print the measures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--reference", type=Path, help="checkout of github.com/naver-ai/seit")
    parser.add_argument("--reference_path", type=Path, help="folder with timm 0.5.4")
    arguments = parse_arguments(parser, multiple=2)
    if arguments.reference and (arguments.quick or not arguments.reference_path):
        parser.error("--reference needs --reference_path, and models of the published size: no --quick")
    torch.set_num_threads(1)
    size, count = arguments.batch_size, arguments.steps
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        make_store(folder / "store", arguments.rows)
        step = Step(folder, size, arguments.precision, arguments.quick, arguments.compile)
        report("parameters trained", step.parameters / 1e6, "million")
        for name, network in zip(("encoder", "decoder and head"), step.networks(), strict=True):
            report(f"counted: {name}, forward", network.operations / 1e9, "GFLOP/image")
        for index in range(arguments.warm):
            step.run(index)
        ours, theirs = measure_parts(step, count), None
        if arguments.reference:
            write_release(open_store(folder / "store"), folder)
            theirs = measure_published(arguments, folder)
            assert theirs["parameters"] == step.parameters, "the models differ: the comparison would mean nothing"
            ours = least([ours, measure_parts(step, count)])
        report_parts("ours", ours, size)
        rate = measure_throughput(step, count)
        report_limits(step, ours, rate)
        if theirs:
            report_ratios(ours, rate, theirs, size)
        if arguments.profile:
            report_profile(arguments.profile, step, count)


def report_ratios(ours, rate, theirs, batch_size):
    """The published step's times, and ours against them.

    Args:
        ours: seconds of the parts of our step.
        rate: our images a second, of steps in a row.
        theirs: what `measure_published` returned.
        batch_size: of both.
    """
    report_parts("published", theirs["parts"], batch_size)
    report("published: steps in a row", theirs["rate"], "images/s", precision=theirs["precision"])
    for part, seconds in ours.items():
        name = f"ours against the published, {part}"
        report_ratio(name, batch_size / seconds, batch_size / theirs["parts"][part], "images/s")
    report_ratio("ours against the published, steps in a row", rate, theirs["rate"], "images/s")


def write_release(store, folder):
    """The store's rows in the form that the published loader reads."""
    ids = store.ids(range(len(store)))
    with published.writing(folder / "train-token.data.bin.gz", len(ids)) as append:
        append(rearrange(ids, "b h w -> b (h w)").numpy())
    (folder / "train-label.txt").write_text(
        "".join(f"{label}\n" for label in store.labels_at(range(len(store))).tolist())
    )
    torch.save(store.codebook, folder / "codebook.ckpt")


def measure_published(arguments, folder):
    """The published step in a process of its own: the JSON object that benchmarks.published_pretrain prints."""
    torch.cuda.empty_cache()  # it needs the device's memory too
    words = ["-m", "benchmarks.published_pretrain", arguments.reference, arguments.reference_path, folder]
    command = [sys.executable, *map(str, words), str(arguments.batch_size), str(arguments.steps)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
