"""`seitpp explore`: neighbours that a loop over all pairs finds too, a map that keeps who is near whom, pictures."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import tiny
from seitpp.finetune import explore as stage
from seitpp.finetune import probe
from seitpp.finetune.classifier import Classifier, save_classifier
from seitpp.finetune.exploring import query_places
from seitpp.finetune.labelled import LabelledRows, open_labelled
from seitpp.finetune.load import load_encoder
from seitpp.finetune.probing.feature_map import feature_map
from seitpp.finetune.probing.feature_set import FeatureSet
from seitpp.finetune.probing.nearest import neighbours_of
from seitpp.mtm.encoder import EncoderConfig
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json
from seitpp.runtime.picture_cells import cells_of
from seitpp.runtime.results import read_results
from seitpp.tokenizers.sources.images import open_image_folder
from seitpp.tokenizers.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def world(tmp_path_factory, images, test_images, tokenizer_folder):
    """Stores of 30 training and 12 test images, and a pre-training, all of one tokenizer."""
    folder = tmp_path_factory.mktemp("explored")
    fingerprint = load_tokenizer(tokenizer_folder).fingerprint
    for name, source in (("train", images), ("test", test_images)):
        found = open_image_folder(source)
        ids = tiny.striped_ids(found.labels, tiny.GRID, seed=len(name))
        tiny.make_store(
            folder / name, ids, labels=found.labels, keys=found.keys, fingerprint=fingerprint, classes=found.classes
        )
    tiny.make_mtm(folder / "mtm", fingerprint=fingerprint)
    return folder


def make_config(world, output, **fields):
    fields = {"queries": 4, "neighbours": 3, "mixed_precision": "no", "batch_size": 8, **fields}
    return stage.ExploreConfig(
        store=str(world / "train"), eval_store=str(world / "test"), weights=str(world / "mtm"), output_dir=str(output),
        features_folder=str(world / "features"), **fields,
    )  # fmt: skip


@pytest.fixture(scope="module")
def explored(world, tmp_path_factory, tokenizer_folder):
    output = tmp_path_factory.mktemp("explored-run") / "run"
    stage.explore(make_config(world, output, tokenizer=str(tokenizer_folder)))
    return output


def directions(world, name):
    """Unit features of a store's rows by the encoder itself, and the keys."""
    rows = open_labelled(world / name)
    features = load_encoder(world / "mtm").pooled(rows.store.ids(range(len(rows.store)))).detach().numpy()
    return features / np.linalg.norm(features, axis=1, keepdims=True), rows.store.keys(), rows


def test_neighbours_are_those_of_a_loop_over_all_pairs_nearest_first(world, explored):
    table = pd.read_csv(explored / "neighbours.csv")
    (train, train_keys, _), (test, test_keys, _) = directions(world, "train"), directions(world, "test")
    assert len(table) == 4 * 3
    for query, rows in table.groupby("query"):
        similarities = [float(each @ test[test_keys.index(query)]) for each in train]
        assert rows["rank"].tolist() == [1, 2, 3]
        assert rows.similarity.to_numpy() == pytest.approx(sorted(similarities, reverse=True)[:3], abs=1e-5)
        for row in rows.itertuples():
            assert row.similarity == pytest.approx(similarities[train_keys.index(row.neighbour)], abs=1e-5)
            assert (row.query_class, row.neighbour_class) == (query.split("/")[0], row.neighbour.split("/")[0])


def test_the_agreement_is_the_share_of_neighbours_of_the_same_class(world, explored):
    (train, _, train_rows), (test, _, test_rows) = directions(world, "train"), directions(world, "test")
    nearest = np.argsort(-(test @ train.T), axis=1)[:, :3]
    expected = (train_rows.targets[nearest] == test_rows.targets[:, None]).mean()
    (row,) = read_results([explored]).itertuples()
    assert (row.metric, row.protocol, row.init) == ("neighbour_agreement", "knn3", "mtm")
    assert (row.train_images, row.test_images) == (30, 12)
    assert row.value == pytest.approx(expected)


def test_the_map_has_every_test_row_once_with_its_class(explored, test_images):
    table = pd.read_csv(explored / "feature_map.csv")
    assert sorted(table.key) == open_image_folder(test_images).keys
    assert table["class"].tolist() == [key.split("/")[0] for key in table.key]
    assert np.isfinite(table[["x", "y"]].to_numpy()).all()
    told = read_json(explored / "summary.json")["feature_map"]
    assert (told["rows"], told["method"]) == (12, "tsne")


def test_the_picture_shows_each_query_and_its_neighbours_where_it_says(explored):
    with Image.open(explored / "neighbours.png") as picture:
        cells = cells_of(picture)
        size = picture.size
    assert (cells.count, cells.columns) == (4 * (1 + 3), 4)
    assert cells.box(15)[2] <= size[0]
    assert cells.box(15)[3] <= size[1]


def test_without_a_tokenizer_neighbours_are_read_from_the_images(world, tmp_path, images, test_images):
    fields = {"images": str(images), "eval_images": str(test_images), "method": "pca", "map_rows": 5}
    stage.explore(make_config(world, tmp_path / "run", **fields))
    first = pd.read_csv(tmp_path / "run" / "neighbours.csv")["query"][0]
    with Image.open(tmp_path / "run" / "neighbours.png") as picture:
        shown = picture.crop(cells_of(picture).box(0))
    with Image.open(test_images / first) as image:
        expected = np.asarray(image.convert("RGB").resize(shown.size, Image.Resampling.BICUBIC), float)
    assert np.abs(np.asarray(shown, float) - expected).mean() < 12
    assert len(pd.read_csv(tmp_path / "run" / "feature_map.csv")) == 5
    assert len(read_json(tmp_path / "run" / "summary.json")["feature_map"]["explained_variance"]) == 2


def test_without_either_there_is_no_picture_and_an_old_one_goes(world, tmp_path, tokenizer_folder):
    run = tmp_path / "run"
    stage.explore(make_config(world, run, method="pca", tokenizer=str(tokenizer_folder)))
    assert (run / "neighbours.png").exists()
    (run / "mine.txt").write_text("mine")
    stage.explore(make_config(world, run, method="pca", resume="none"))
    assert not (run / "neighbours.png").exists()
    assert (run / "mine.txt").read_text() == "mine"


def test_a_finished_exploration_is_not_run_again_and_a_seed_repeats_it(
    world, explored, tmp_path, tokenizer_folder, capsys
):
    stage.explore(make_config(world, explored, tokenizer=str(tokenizer_folder)))
    assert "finished before, nothing to do" in capsys.readouterr().out
    stage.explore(make_config(world, tmp_path / "same"))
    stage.explore(make_config(world, tmp_path / "other", seed=5))
    for name in ("neighbours.csv", "feature_map.csv"):
        assert (tmp_path / "same" / name).read_bytes() == (explored / name).read_bytes()
    assert (tmp_path / "other" / "neighbours.csv").read_bytes() != (explored / "neighbours.csv").read_bytes()


def test_a_fine_tuning_of_several_seeds_is_explored_as_probed_by_its_first(world, tmp_path):
    fingerprint = open_labelled(world / "train").store.tokenizer["fingerprint"]
    for seed in (0, 1):
        torch.manual_seed(seed)
        shape = EncoderConfig(width=24, depth=1, heads=3, embedding_std=0.5)
        classifier = Classifier(shape, view=tiny.GRID, codebook_size=tiny.CODES, embedding_dim=5, classes=3)
        save_classifier(
            tmp_path / "tuned" / f"seed-{seed}" / "weights", classifier, tokenizer=fingerprint,
            class_names=["ant", "bee", "cow"], origin={"init": "mtm", "augmentation": "coloradapt"},
        )  # fmt: skip
    config = replace(make_config(world, tmp_path / "run", method="pca"), weights=str(tmp_path / "tuned"))
    stage.explore(config)
    probed = {"store": config.store, "eval_store": config.eval_store, "weights": config.weights, "neighbours": (1,)}
    probe.probe(
        probe.ProbeConfig(
            **probed, protocols=("knn",), features_folder=config.features_folder, mixed_precision="no",
            output_dir=str(tmp_path / "probe"),
        )
    )  # fmt: skip
    said = [read_results([tmp_path / name])[["init", "augmentation"]].to_numpy().tolist() for name in ("run", "probe")]
    assert said == [[["classifier", "coloradapt"]]] * 2
    assert not (tmp_path / "probe" / "features").exists()  # they were those of the exploration


@pytest.mark.parametrize(("count", "most"), [(3, 1), (4, 2), (6, 2), (12, 5)])
def test_queries_are_of_as_many_classes_as_possible(world, count, most):
    labelled = open_labelled(world / "test")
    chosen = query_places(labelled, count, seed=0)
    assert len(set(chosen.tolist())) == count
    assert max(Counter(labelled.targets[chosen].tolist()).values()) == most
    assert (np.diff(labelled.targets[chosen]) >= 0).all()


def test_a_row_is_no_neighbour_of_itself_where_a_store_is_asked_about_itself(world):
    rows = open_labelled(world / "train")
    features = np.random.default_rng(0).standard_normal((len(rows.store), 6)).astype(np.float32)
    features[4] = features[9]
    whole = FeatureSet(features, rows)
    similarities, found = neighbours_of(whole, whole, np.arange(30), 2, device="cpu", blocks=(7, 11))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    products = unit @ unit.T
    np.fill_diagonal(products, -2)
    assert similarities == pytest.approx(-np.sort(-products, axis=1)[:, :2], abs=1e-6)
    assert (found[4, 0], found[9, 0]) == (9, 4)


def test_places_of_neighbours_count_labelled_rows(world):
    rows = open_labelled(world / "train")
    features = np.eye(len(rows.store), dtype=np.float32)
    some = LabelledRows(rows.store, np.array([3, 8, 20]), rows.labels, rows.classes)
    test = FeatureSet(features, open_labelled(world / "test").part(np.array([8, 3])))
    _, found = neighbours_of(FeatureSet(features, some), test, np.array([0, 1]), 1, device="cpu")
    assert found.tolist() == [[1], [0]]


# The map


def clusters(rows=60):
    """Three groups of directions in 12 dimensions, and which row is of which."""
    random = np.random.default_rng(2)
    groups = np.arange(rows) % 3
    return np.eye(12)[groups] * 5 + random.standard_normal((rows, 12)) * 0.2, groups


@pytest.mark.parametrize("way", ["tsne", "pca"])
def test_groups_of_directions_stay_apart_in_the_map(way):
    features, groups = clusters()
    lengths = np.random.default_rng(0).uniform(0.1, 50, (60, 1))
    placed, told = feature_map(features * lengths, way, perplexity=10, seed=3)
    distances = np.linalg.norm(placed[:, None] - placed[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (groups[distances.argmin(axis=1)] == groups).all()
    assert told["method"] == way
    assert 0.7 < told["trustworthiness"] <= 1


def test_the_axes_of_pca_carry_what_a_singular_value_decomposition_says():
    features, _ = clusters()
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    values = np.linalg.svd(unit - unit.mean(0), compute_uv=False) ** 2
    placed, told = feature_map(features, "pca", perplexity=10, seed=0)
    assert told["explained_variance"] == pytest.approx((values / values.sum())[:2])
    assert placed.var(axis=0) * len(placed) == pytest.approx(values[:2])


@pytest.mark.parametrize("rows", [2, 3, 4, 5])
def test_a_few_rows_have_a_map_too(rows):
    placed, told = feature_map(np.eye(12)[:rows] + 0.1, "tsne", perplexity=30, seed=0)
    assert placed.shape == (rows, 2)
    assert np.isfinite(placed).all()
    assert told["method"] == ("tsne" if rows == 5 else "pca")


def test_a_collapsed_encoder_has_a_map_of_one_point():
    placed, told = feature_map(np.ones((9, 4)), "tsne", perplexity=3, seed=0)
    assert (placed == 0).all()
    assert told["trustworthiness"] is None


# What is refused, and many processes


def test_weights_and_tokenizers_that_do_not_fit_are_refused_before_anything_is_written(world, tmp_path):
    config = make_config(world, tmp_path / "run")
    with pytest.raises(UserError, match="tokenizer bbbbbbbbbbbb"):
        stage.explore(replace(config, weights=str(tiny.make_mtm(tmp_path / "mtm", fingerprint="b" * 64))))
    with pytest.raises(UserError, match="belongs to tokenizer"):
        stage.explore(replace(config, tokenizer=str(tiny.make_tokenizer(tmp_path / "tokenizer", seed=3))))
    (tmp_path / "photos" / "ant").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "ant" / "other.png")
    photos = {"images": str(tmp_path / "photos"), "eval_images": str(tmp_path / "photos")}
    with pytest.raises(UserError, match=r"lacks ant/.*name the right folder"):
        stage.explore(replace(config, **photos))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_processes_leave_what_one_leaves(world, explored, tmp_path):
    flags = {
        "store": world / "train", "eval_store": world / "test", "weights": world / "mtm", "queries": 4,
        "neighbours": 3, "mixed_precision": "no", "batch_size": 8, "output_dir": tmp_path / "run",
    }  # fmt: skip
    launches = [{"processes": 2, "argv": [f"--{name}={value}" for name, value in flags.items()]}]
    words = ["seitpp.finetune.explore", "explore", "ExploreConfig", json.dumps(launches)]
    done = tiny.run(tiny.TESTS / "stage_processes.py", *words, timeout=300)
    assert done.returncode == 0, done.stderr
    (launch,) = json.loads(done.stdout)
    assert launch["codes"] == [0, 0], launch["said"]
    mine, others = (pd.read_csv(each / "neighbours.csv") for each in (tmp_path / "run", explored))
    assert mine.neighbour.tolist() == others.neighbour.tolist()
    assert read_results([tmp_path / "run"]).value[0] == pytest.approx(read_results([explored]).value[0])
