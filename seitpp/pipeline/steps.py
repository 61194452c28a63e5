"""The steps from images to a report that `seitpp fit` and the demo share: commands, and what each needs."""

from dataclasses import dataclass
from pathlib import Path

from seitpp.pipeline.sizes import Sizes
from seitpp.runtime.steps.step import Step, flag_words

_LAUNCHED = {
    "train-tokenizer": "seitpp.tokenizers.train", "train-tokenadapt": "seitpp.tokenadapt.train",
    "pretrain": "seitpp.mtm.pretrain", "finetune": "seitpp.finetune.train",
}  # fmt: skip
"""Trainings, which many processes may share."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """The folders of a whole way, and how its commands are typed.

    Attributes:
        folder: of all that is made.
        images: holds train and test.
        sizes: of the trainings.
        tokenizer: one that is there; None: it is trained.
        launched: stages that start by accelerate launch, whatever the number of processes.
    """

    folder: Path
    images: Path
    sizes: Sizes
    tokenizer: str | None = None
    launched: tuple[str, ...] = ()

    @property
    def stores(self) -> tuple[str, ...]:
        """Flags of the training and test tokens."""
        return ("--store", f"{self.folder}/store/train", "--eval_store", f"{self.folder}/store/test")

    @property
    def with_tokenizer(self) -> tuple[str, str]:
        """Flags of the tokenizer."""
        return ("--tokenizer", self.tokenizer or f"{self.folder}/tokenizer")

    def stage(self, name: str, *flags: str, out: str) -> tuple[str, ...]:
        """The words of a stage's command: its recipe, its sizes, further flags."""
        processes = self.sizes.processes
        start: tuple[str, ...] = ("seitpp", name)
        if name in self.launched or (processes > 1 and name in _LAUNCHED):
            many = ("--num_processes", f"{processes}") if processes > 1 else ()
            start = ("accelerate", "launch", *many, "-m", _LAUNCHED[name])
        recipe = ("--config", self.sizes.recipes[name]) if name in self.sizes.recipes else ()
        own = flag_words(self.sizes.flags.get(name, {}))
        return (*start, *recipe, *own, *flags, "--output_dir", f"{self.folder}/{out}")

    def to_tokens(self) -> list[Step]:
        """Train the tokenizer, where none is given, and make the tokens."""
        images, after = self.images, ()
        steps = []
        if self.tokenizer is None:
            command = self.stage("train-tokenizer", "--images", f"{images}/train", out="tokenizer")
            steps.append(Step(name="Tokenizer", after=(), seconds=75, cores=2, command=command))
            after = ("Tokenizer",)
        train, like = "Tokens of the training images", ("--like", f"{self.folder}/store/train")
        command = self.stage("tokenize", "--images", f"{images}/train", *self.with_tokenizer, out="store/train")
        steps.append(Step(name=train, after=after, seconds=12, command=command))
        command = self.stage("tokenize", "--images", f"{images}/test", *self.with_tokenizer, *like, out="store/test")
        return [*steps, Step(name="Tokens of the test images", after=(train,), seconds=8, command=command)]

    def to_encoder(self) -> list[Step]:
        """Train TokenAdapt, and pre-train with it."""
        adapting = self.stage(
            "train-tokenadapt", "--images", f"{self.images}/train", *self.with_tokenizer, out="tokenadapt"
        )
        pretraining = self.stage(
            "pretrain", *self.stores, *self.with_tokenizer, "--augment.token_adapt", f"{self.folder}/tokenadapt",
            out="mtm",
        )  # fmt: skip
        return [
            Step(name="TokenAdapt", after=("Tokens of the test images",), seconds=65, cores=2, command=adapting),
            Step(name="MTM pre-training", after=("TokenAdapt", "Tokens of the test images"), seconds=260,
                 command=pretraining),
        ]  # fmt: skip

    def learning(
        self, task: str, *, labels: tuple[str, ...] = (), shorter: tuple[str, ...] = (), seconds: float = 70,
        ending: str = "",
    ) -> list[Step]:  # fmt: skip
        """Train from scratch, fine-tune and probe.

        Args:
            task: its name in results.
            labels: flags of other labels than the stores'.
            shorter: flags of a shorter training.
            seconds: of a training.
            ending: of the names of the runs.
        """
        common = (*self.stores, *labels, "--dataset", task)
        encoder = ("--weights", f"{self.folder}/mtm")
        scratch = self.stage("finetune", *common, *shorter, out=f"scratch{ending}")
        tuning = self.stage("finetune", *common, *shorter, *encoder, out=f"finetune{ending}")
        images = ("--images", f"{self.images}/train", "--eval_images", f"{self.images}/test")
        probing = self.stage("probe", *common, *encoder, *images, out=f"probe{ending}")
        after = ("MTM pre-training",)
        return [
            Step(name=f"From scratch, {task}", after=("Tokens of the test images",), seconds=seconds, command=scratch),
            Step(name=f"Fine-tuning, {task}", after=after, seconds=seconds, command=tuning),
            Step(name=f"Probe, {task}", after=after, seconds=15, command=probing),
        ]

    def closer_look(self, task: str, classifier: str) -> list[Step]:
        """Mistakes of a classifier, and what is taken home: a bundle."""
        after, weights = (f"Fine-tuning, {task}",), f"{self.folder}/{classifier}"
        evaluating = (
            "seitpp", "evaluate", "--classifier", weights, "--store", f"{self.folder}/store/test",
            *self.with_tokenizer, "--dataset", task, "--output_dir", f"{self.folder}/evaluation",
        )  # fmt: skip
        return [
            Step(name="Evaluation", after=after, seconds=8, command=evaluating),
            Step(name="Bundle", after=after, seconds=5, command=self.bundling(weights)),
        ]

    def without_labels(self) -> list[Step]:
        """What is made of images without classes: completions, features, a bundle that embeds."""
        after, encoder = ("MTM pre-training",), ("--weights", f"{self.folder}/mtm")
        filling = (
            "seitpp", "reconstruct", "--store", f"{self.folder}/store/test", *encoder, *self.with_tokenizer,
            "--out", f"{self.folder}/reconstructed.png",
        )  # fmt: skip
        steps = [Step(name="Reconstruction", after=after, seconds=8, command=filling)]
        for part in ("train", "test"):
            command = (
                "seitpp", "embed", "--store", f"{self.folder}/store/{part}", *encoder,
                "--out", f"{self.folder}/features-{part}.parquet",
            )  # fmt: skip
            steps.append(Step(name=f"Features of the {part} images", after=after, seconds=8, command=command))
        bundle = self.bundling(f"{self.folder}/mtm")
        return [*steps, Step(name="Bundle", after=after, seconds=5, command=bundle)]

    def bundling(self, weights: str) -> tuple[str, ...]:
        """The command that puts tokenizer and model into one folder."""
        return (
            "seitpp", "export-model", "--weights", weights, "--kind", "bundle", *self.with_tokenizer,
            "--out", f"{self.folder}/bundle",
        )  # fmt: skip

    def reporting(self, steps: list[Step]) -> Step:
        """The page of all of it, after all steps."""
        command = (
            "seitpp", "report", f"{self.folder}", "--images", f"{self.images}", "--out", f"{self.folder}/report.html"
        )  # fmt: skip
        return Step(name="Report", command=command, after=tuple(step.name for step in steps), seconds=8)


def fit_steps(way: Way, *, labelled: bool) -> list[Step]:
    """All steps of a fit, each after those it needs.

    Args:
        way: its folders and sizes.
        labelled: whether there are classes to learn.
    """
    steps = way.to_tokens() + way.to_encoder()
    steps += [*way.learning("photos"), *way.closer_look("photos", "finetune")] if labelled else way.without_labels()
    return [*steps, way.reporting(steps)]
