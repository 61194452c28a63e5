"""What is done on one set: the encoder is probed and fine-tuned, by recipes, each in a run of its own.

sets/cub/probe-weights         the probes of the trained encoder
sets/cub/finetune-weights      its fine-tunings, a seed each
sets/cub/probe-scratch         the same of the network as it is drawn: the control
sets/cub/finetune-scratch
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seitpp.downstream.fine_grained_table import run_folder_of
from seitpp.finetune.evaluate import evaluate_classes
from seitpp.finetune.probe import ProbeConfig, probe_features
from seitpp.finetune.probing.encoders import trained_encoder
from seitpp.finetune.train import FinetuneConfig, finetune_seeds
from seitpp.mtm.encoder import EncoderConfig, fitting_view
from seitpp.runtime.command import parse
from seitpp.runtime.config import require
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.errors import UserError
from seitpp.runtime.fingerprints import weights_fingerprint
from seitpp.runtime.ownership import is_run
from seitpp.runtime.processes import Processes
from seitpp.runtime.run_content import remove_checkpoints
from seitpp.tokenizers.tokenizer import Tokenizer
from seitpp.tokens.one_dimensional import geometry_of
from seitpp.tokens.store import TokenStore

if TYPE_CHECKING:
    from seitpp.downstream.fine_grained import FineGrainedConfig

METRICS = ("accuracy", "mean_per_class")
_PLACES = ("output_dir", "store", "eval_store", "weights", "resume", "seed", "seeds", "dataset")
_UNKNOWN = "sets/NAME"
"""Stands for what a recipe does not say, where it is read before anything runs."""


@dataclass(frozen=True, kw_only=True)
class Recipes:
    """What the runs on every set are told, and the encoder that they begin with.

    Attributes:
        probe: a ProbeConfig.
        finetune: a FinetuneConfig.
        weights: folder of the encoder; None: there is none.
        encoder: its shape, or that of the fine-tuning's recipe.
        view: (h, w) tokens that it sees; None: all.
        tokenizer: fingerprint of its tokenizer; None: any.
    """

    probe: ProbeConfig
    finetune: FinetuneConfig
    weights: str | None
    encoder: EncoderConfig
    view: tuple[int, int] | None
    tokenizer: str | None

    def check(self, tokenizer: Tokenizer) -> None:
        """Refuse a tokenizer whose tokens the encoder was not trained on, or can't see.

        Raises: UserError.
        """
        if self.tokenizer is not None and tokenizer.fingerprint != self.tokenizer:
            raise UserError(
                f"the weights belong to tokenizer {self.tokenizer[:12]}, --tokenizer is {tokenizer.fingerprint[:12]}: "
                "give the one whose tokens they were trained on"
            )
        fitting_view(
            self.finetune.view or self.view, tuple(tokenizer.grid), self.encoder.patch_size, geometry_of(tokenizer)
        )

    def fingerprints(self) -> dict[str, Any]:
        """Of the recipes as they resolve and the weights, by the names of their fields."""
        found: dict[str, Any] = {"weights": self.weights and weights_fingerprint(self.weights)}
        for name, recipe in (("probe", self.probe), ("finetune", self.finetune)):
            resolved = {key: value for key, value in asdict(recipe).items() if key not in _PLACES}
            found[name] = hashlib.sha256(json.dumps(resolved).encode()).hexdigest()
        return found


def read_recipes(config: "FineGrainedConfig") -> Recipes:
    """The recipes of a run, resolved, and what is known of its weights.

    Args:
        config: a FineGrainedConfig.
    Raises: UserError naming what is wrong.
    """
    probing = _recipe(config, "probe", ProbeConfig, ["--features", "[random]"])
    tuning = _recipe(config, "finetune", FinetuneConfig, [])
    require(tuning, "multi_label", not tuning.multi_label, "is for rows of several labels, these sets have one")
    shape, view, tokenizer = tuning.encoder, tuning.view, None
    if config.weights is not None:
        encoder, shape, tokenizer, _ = trained_encoder(config.weights)
        view = (encoder.view[0], encoder.view[1])
    return Recipes(
        probe=probing, finetune=tuning, weights=config.weights, encoder=shape, view=view, tokenizer=tokenizer
    )


def measure_set(
    config: "FineGrainedConfig", name: str, recipes: Recipes, train: TokenStore, test: TokenStore,
    processes: Processes,
) -> None:  # fmt: skip
    """Do on one set what was not done before; called on all processes.

    Args:
        config: a FineGrainedConfig.
        name: of the set.
        recipes: Recipes.
        train: store to learn from.
        test: store to measure on.
        processes: the launch's.
    """
    starts = (["weights"] if config.weights is not None else []) + (
        ["scratch"] if config.scratch or config.weights is None else []
    )
    common = {"store": str(train.folder), "eval_store": str(test.folder), "dataset": name, "seed": config.seed}
    for method in config.methods:
        for start in starts:
            folder = run_folder_of(config.output_dir, name, method, start)
            told = {**common, "resume": config.resume, "output_dir": str(folder)}
            if processes.is_main:
                print(f"\n{name}, {method}, from {start}", flush=True)
            if method == "probe":
                _probe(recipes, start, told)
            else:
                _finetune(recipes, start, {**told, "seeds": config.seeds}, len(train), processes)
            if processes.is_main:
                _drop_checkpoints(folder)


def _drop_checkpoints(folder):
    """Remove what finished runs would have gone on from."""
    for parent, _, _ in os.walk(folder):
        if is_run(parent):
            remove_checkpoints(Path(parent))


def _probe(recipes, start, told):
    features = "mtm" if start == "weights" else "random"
    probing = replace(
        recipes.probe, features=(features,), weights=recipes.weights, encoder=recipes.encoder, view=recipes.view, **told
    )
    probe_features(probing, make_accelerator(probing.mixed_precision), metrics=METRICS)


def _finetune(recipes, start, told, rows, processes):
    tuning = replace(recipes.finetune, **told)
    if start == "weights":
        tuning = replace(tuning, weights=recipes.weights)
    else:
        tuning = replace(tuning, weights=None, encoder=recipes.encoder, view=tuning.view or recipes.view)
    fitting = rows // 3 // tuning.accum_iter // processes.count // 4 * 4 or 2  # pairs of pairs are mixed
    tuning = replace(tuning, batch_size=min(tuning.batch_size, fitting))
    finetune_seeds(tuning, make_accelerator(tuning.mixed_precision), evaluator=evaluate_classes)


def _recipe(config, stage, config_class, words):
    """A stage's configuration as its recipe resolves, or its defaults."""
    name = getattr(config, stage)
    recipe = [] if name is None else ["--config", name]
    given = ["--store", _UNKNOWN, "--eval_store", _UNKNOWN, "--output_dir", config.output_dir, *words]
    try:
        return parse(config_class, [*recipe, *given], recipes=stage)
    except UserError as error:
        raise UserError(f"--{stage} {name}: {error}") from error
