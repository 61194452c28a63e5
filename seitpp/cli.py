"""`seitpp`: the stages of the suite under one command. It imports nothing heavy before a stage is chosen."""

import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from seitpp.runtime.errors import UserError
from seitpp.runtime.stand_ins import stand_ins
from seitpp.runtime.suggest import did_you_mean

STAGES = {
    "train-tokenizer": ("seitpp.tokenizers.train", "train a VQ tokenizer on your own images"),
    "import-tokenizer": ("seitpp.tokenizers.import_tokenizer", "convert a published tokenizer's checkpoint"),
    "tokenize": ("seitpp.tokenizers.tokenize", "turn images into a token store, once"),
    "tokenize-ray": ("seitpp.tokenizers.tokenize_ray", "the same on a Ray cluster"),
    "reduce-codebook": ("seitpp.tokenizers.reduce_codebook", "keep the codes that a store uses, and remap it"),
    "train-tokenadapt": ("seitpp.tokenadapt.train", "train TokenAdapt's f and g for a tokenizer"),
    "pretrain": ("seitpp.mtm.pretrain", "pre-train a ViT on a token store by masked token modelling"),
    "reconstruct": ("seitpp.mtm.reconstruct", "fill half-masked images of a store, as a picture"),
    "import-model": ("seitpp.finetune.import_model", "convert a published SeiT, SeiT++ or TokenAdapt checkpoint"),
    "export-model": (
        "seitpp.finetune.export",
        "write a model for timm, the Hub, ONNX or torch.export, or as released",
    ),
    "embed": ("seitpp.finetune.embed", "write the features of a store as Parquet"),
    "probe": ("seitpp.finetune.probe", "linear and attentive probes, k-NN, few labels, simple baselines"),
    "explore": ("seitpp.finetune.explore", "nearest neighbours of a few images, and a 2-D map of features"),
    "finetune": ("seitpp.finetune.train", "fine-tune a pre-trained encoder, or train from scratch"),
    "train-on-jpegs": ("seitpp.finetune.pixels", "train the same classifier on images, as JPEGs within a byte budget"),
    "continual": ("seitpp.finetune.continual", "learn classes task after task, with a memory of few bytes"),
    "evaluate": ("seitpp.finetune.evaluation", "measure a classifier on a token store or on images"),
    "predict": ("seitpp.finetune.predict_command", "print the most likely classes of images"),
    "fine-grained": ("seitpp.downstream.fine_grained", "transfer to other data sets: probes and fine-tuning on each"),
    "robustness": ("seitpp.downstream.robustness", "accuracy of classifiers under corruptions and in other domains"),
    "segmentation": (
        "seitpp.downstream.segmentation.train",
        "train and measure semantic segmentation on stored tokens",
    ),
    "segment": ("seitpp.downstream.segmentation.predict_command", "draw the classes of the pixels of images"),
    "adversarial": (
        "seitpp.downstream.adversarial",
        "accuracy of classifiers under FGSM and PGD, through the tokenizer",
    ),
    "ablation": ("seitpp.downstream.ablation", "which ingredient of pre-training helps on your data: one table"),
    "storage-curve": ("seitpp.downstream.storage_curve", "accuracy against bytes: tokens, and JPEGs of as many bytes"),
    "demo": ("seitpp.demo.demo", "the whole pipeline on OpenMoji or on your own images, in minutes on a CPU"),
    "fit": ("seitpp.pipeline.fit", "from a folder of images to a model in use, with one command"),
    "split": ("seitpp.pipeline.split", "divide your images into training and test images, look-alikes on one side"),
    "draw-openmoji": ("seitpp.demo.openmoji", "draw the demo's images, at any size"),
    "report": ("seitpp.report.report", "one self-contained page and results.csv of many runs"),
    "recipes": ("seitpp.runtime.list_recipes", "list the recipes that --config knows by name"),
    "doctor": ("seitpp.doctor", "versions, devices, memory, free disk, extras"),
}
OTHERS = {
    "launch": "run a stage on several processes of this machine: one a GPU, or on its cores",
    "completion": "print a script by which bash, zsh or tcsh completes what is typed",
    "store": "look at a token store, check, export, import or divide it: seitpp store lists how",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run `seitpp STAGE [flags]`; `seitpp STAGE --help` lists a stage's flags."""
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        _start(argv)
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at its end
        sys.exit(141)
    except KeyboardInterrupt:  # a running stage says itself how to resume; this one was still being imported
        print("stopped before it began", file=sys.stderr)
        sys.exit(130)


def _start(argv):
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return
    if argv[0] in ("--version", "version"):
        from seitpp.doctor import version

        print(f"seitpp {version()}")
        return
    stage, rest = argv[0], argv[1:]
    if stage == "launch":
        _launch(rest)
    elif stage == "completion":
        from seitpp.completion import print_script

        print_script(rest, STAGES, OTHERS)
    elif stage == "store":
        from seitpp.store_cli import main as store_main

        store_main(rest)
    elif stage in STAGES:
        sys.argv = [f"seitpp {stage}", *rest]
        with stand_ins() if _asks(rest) else nullcontext():
            importlib.import_module(STAGES[stage][0]).cli()
    else:
        advice = did_you_mean(stage, [*STAGES, *OTHERS], "seitpp --help lists them")
        print(f"error: no stage {stage}; {advice}", file=sys.stderr)
        sys.exit(1)


def _launch(words):
    from seitpp.launch import launch

    try:
        code = launch(words, list(STAGES))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    sys.exit(code)


def _asks(words):
    """Whether a stage is only asked what its flags are, or what they come to."""
    return any(word in ("-h", "--help", "--help_all", "--print_config") for word in words)


def _help():
    stages = {name: text for name, (_, text) in STAGES.items()} | OTHERS
    width = max(map(len, stages))
    lines = [f"  {name:<{width}}  {text}" for name, text in stages.items()]
    return "\n".join(
        [
            "usage: seitpp STAGE [--config RECIPE] [--flag value ...]",
            "",
            *lines,
            "",
            "seitpp STAGE --help lists a stage's flags, seitpp --version says the version.",
            "seitpp launch --processes 8 STAGE … runs it on several GPUs. Each stage is also a module for Accelerate:",
            "accelerate launch -m seitpp.mtm.pretrain --config vit_base --store STORE --output_dir RUN",
        ]
    )


if __name__ == "__main__":
    main()
