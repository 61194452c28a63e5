"""Where a fine-tuning begins: the Stem-Adapter from scratch, other classifiers, other views."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import tiny
from seitpp.finetune import train as stage
from seitpp.finetune.classifier import read_classifier
from seitpp.finetune.start import start_classifier
from seitpp.mtm.augmentation.augment import AugmentConfig
from seitpp.mtm.augmentation.mixing import MixConfig
from seitpp.mtm.encoder import EncoderConfig
from seitpp.mtm.patches import interpolate_positions
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json
from seitpp.tokens.codebook import embed
from seitpp.tokens.store import TokenStore

ENCODER = EncoderConfig(width=24, depth=2, heads=3, token_dropout=0.0, embedding_std=0.5)
NOISY = AugmentConfig(noise=0.2, noise_element=0.1, noise_channel=0.1, crop=False, mix=MixConfig(cutmix=1.0))
START = {
    "weights": None, "encoder": ENCODER, "stem": "patches", "learned_positions": False, "view": None,
    "token_dropout": None, "drop_path": 0.0,
}  # fmt: skip


def make_config(stores, output, **fields):
    fields = {"encoder": ENCODER, "steps": 25, "batch_size": 12, "blr": 0.1, "mixed_precision": "no", **fields}
    return stage.FinetuneConfig(
        store=str(stores / "train"), eval_store=str(stores / "test"), output_dir=str(output), **fields
    )


@pytest.fixture(scope="module")
def seit(stores, tmp_path_factory):
    """SeiT's model, trained on embeddings with noise."""
    config = make_config(
        stores, tmp_path_factory.mktemp("seit") / "run", stem="adapter", learned_positions=True, augment=NOISY,
        ema_decay=0.5, eval_every=5, steps=30,
    )  # fmt: skip
    stage.finetune(config)
    return config


def test_seits_model_learns_from_embeddings_and_is_measured_on_ids(seit, stores):
    results = pd.read_csv(f"{seit.output_dir}/results.csv")
    accuracy = results[results.metric == "accuracy"].value.item()
    assert accuracy > 0.8
    classifier, store = read_classifier(f"{seit.output_dir}/seed-0"), TokenStore(stores / "test")
    assert torch.equal(classifier.encoder.stem.codebook, store.codebook)
    with torch.no_grad():
        from_ids = classifier(store.ids(range(len(store))))
        from_embeddings = classifier(embed(store.ids(range(len(store))), store.codebook))
    assert torch.equal(from_ids, from_embeddings)
    assert (from_ids.argmax(1).numpy() == store.labels).mean() == pytest.approx(accuracy)


def test_the_best_weights_of_a_training_are_kept_those_of_the_average_among_them(seit):
    note = read_json(f"{seit.output_dir}/seed-0/best_weights.json")
    lines = pd.read_json(f"{seit.output_dir}/seed-0/metrics.jsonl", lines=True)
    measured = lines.dropna(subset=["accuracy_ema"]) if "accuracy_ema" in lines else lines
    assert note["value"] == pytest.approx(max(measured.accuracy.max(), measured.accuracy_ema.max()))
    assert note["measure"] == "accuracy"
    best = read_classifier(f"{seit.output_dir}/seed-0/weights_best")
    assert best.class_names == read_classifier(f"{seit.output_dir}/seed-0").class_names


def test_a_classifier_that_knows_the_classes_comes_with_its_head(seit, stores):
    store, folder = TokenStore(stores / "train"), f"{seit.output_dir}/seed-0"
    trained = read_classifier(folder)
    again = start_classifier(store, store.classes, **{**START, "weights": folder}).eval()
    ids = store.ids(range(6))
    with torch.no_grad():
        assert torch.equal(again(ids), trained(ids))


def test_a_classifier_of_other_classes_gives_all_but_its_head_and_results_say_so(seit, stores, table, tmp_path):
    folder = f"{seit.output_dir}/seed-0"
    labels = table("key,label\n" + "".join(f"{row:04d}.png,{'xy'[row % 3 == 0]}\n" for row in range(15)))
    config = make_config(
        stores, tmp_path / "run", weights=folder, labels=str(labels), steps=1, batch_size=6, lr=1e-9,
        augment=AugmentConfig(crop=False),
    )  # fmt: skip
    stage.finetune(config)
    old, new = read_classifier(folder).state_dict(), read_classifier(f"{config.output_dir}/seed-0").state_dict()
    changed = {name for name in old if old[name].shape != new[name].shape or not torch.allclose(old[name], new[name])}
    assert changed == {"head.weight", "head.bias"}
    assert set(pd.read_csv(f"{config.output_dir}/results.csv").init) == {"supervised"}


def test_weights_see_another_view_with_their_positions_stretched(tmp_path, seit):
    ids = tiny.random_ids(8, tiny.CODES, (8, 6))
    store = TokenStore(tiny.make_store(tmp_path / "store", ids))
    classifier = start_classifier(
        store, store.classes, **{**START, "weights": f"{seit.output_dir}/seed-0", "view": (8, 6)}
    )
    before, after = read_classifier(f"{seit.output_dir}/seed-0").encoder.pos_embed, classifier.encoder.pos_embed
    assert classifier.encoder.patch_grid == (4, 3)
    assert (len(before), len(after)) == (6, 12)
    assert torch.equal(after, interpolate_positions(before, (2, 3), (4, 3)))
    assert classifier(ids[:2]).shape == (2, 3)


def test_a_view_that_does_not_fit_and_patches_that_no_adapter_makes_are_refused(stores, seit):
    store = TokenStore(stores / "train")
    with pytest.raises(UserError, match=r"\(8, 6\)"):
        start_classifier(store, store.classes, **{**START, "weights": f"{seit.output_dir}/seed-0", "view": (8, 6)})
    with pytest.raises(UserError, match="patch_size 2, or --stem patches"):
        start_classifier(
            store, store.classes, **{**START, "stem": "adapter", "encoder": replace(ENCODER, patch_size=1)}
        )


def test_blocks_that_are_computed_again_give_the_same_training(stores, tmp_path):
    losses = []
    for again in (False, True):
        config = make_config(
            stores, tmp_path / str(again), grad_checkpointing=again, drop_path=0.3, steps=4, log_every=1,
            augment=AugmentConfig(crop=False),
        )  # fmt: skip
        stage.finetune(config)
        lines = pd.read_json(f"{config.output_dir}/seed-0/metrics.jsonl", lines=True)
        losses.append(lines.loss.dropna().to_numpy())
    assert len(losses[0]) == 4
    assert np.allclose(*losses, rtol=1e-5)
