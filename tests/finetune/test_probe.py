"""The stage: every feature by every protocol, what is chosen and from what, on one process and on several."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import tiny
from seitpp.finetune import probe as stage
from seitpp.finetune.labelled import open_labelled, split_labelled
from seitpp.finetune.probing.few_labels import label_fraction, labels_per_class
from seitpp.finetune.probing.heads import HeadsConfig
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json
from seitpp.runtime.results import read_results
from seitpp.tokenizers.sources.images import open_image_folder

HEADS = HeadsConfig(blr=(0.03, 0.3), weight_decay=(0.0,), blocks=(1, 2), attention_heads=2, batch_size=16, steps=4)


@pytest.fixture(scope="module")
def config(images, test_images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe")
    for name, source in (("train", images), ("test", test_images)):
        found = open_image_folder(source)
        ids = tiny.striped_ids(found.labels, tiny.GRID)
        tiny.make_store(folder / name, ids, labels=found.labels, keys=found.keys)
    return stage.ProbeConfig(
        store=str(folder / "train"), eval_store=str(folder / "test"), images=str(images),
        eval_images=str(test_images), weights=str(tiny.make_mtm(folder / "mtm")), neighbours=(3, 5, 99),
        features=("majority", "pixels", "bag-of-tokens", "random", "mtm"), shots=(1, 2), label_seeds=2, heads=HEADS,
        protocols=("linear", "knn", "linear_grid"), inverse_regularisation=(0.01, 1.0), mixed_precision="no",
        output_dir=str(folder / "run"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def results(config):
    stage.probe(config)
    return read_results([config.output_dir])


@pytest.fixture(scope="module")
def probed(results):
    """Those with all labels."""
    return results[results.label_fraction == 1].set_index(["protocol", "init"])


def test_every_feature_has_its_rows_in_the_results(probed):
    assert list(probed.index) == [
        ("majority", ""), ("linear", "pixels"), ("linear", "bag-of-tokens"),
        ("linear", "random"), ("knn3", "random"), ("knn5", "random"), ("linear_grid", "random"),
        ("linear", "mtm"), ("knn3", "mtm"), ("knn5", "mtm"), ("linear_grid", "mtm"),
    ]  # fmt: skip
    assert set(probed.train_images) == {30}
    assert set(probed.test_images) == {12}


def test_the_majority_in_the_results_is_that_by_hand(probed):
    assert probed.value["majority", ""] == pytest.approx(5 / 12)  # 13 ants are the most of the training set


def test_the_pixels_tell_the_class(probed):
    assert probed.value["linear", "pixels"] > 0.9  # the tiny images have a hue a class


def test_a_linear_probe_is_scikit_learns_fitted_on_all_training_rows_with_the_best_c_of_the_held_out_part(
    config, probed
):
    train_set, test_set = open_labelled(config.store), open_labelled(config.eval_store)
    bags = [
        np.sqrt([np.bincount(ids.flatten(), minlength=tiny.CODES) for ids in each.store.ids(range(len(each.store)))])
        for each in (train_set, test_set)
    ]

    def accuracy_of(part, strength, features, measured):
        scaler = StandardScaler().fit(bags[0][part.rows])
        model = LogisticRegression(C=strength, max_iter=1000).fit(scaler.transform(bags[0][part.rows]), part.targets)
        return model.score(scaler.transform(features[measured.rows]), measured.targets)

    learned, judged = split_labelled(train_set, config.held_out, seed=0)
    tried = [accuracy_of(learned, each, bags[0], judged) for each in config.inverse_regularisation]
    best = config.inverse_regularisation[int(np.argmax(tried))]
    assert read_json(Path(config.output_dir) / "summary.json")["C"]["bag-of-tokens"] == best
    expected = accuracy_of(train_set, best, bags[1], test_set)
    assert probed.value["linear", "bag-of-tokens"] == pytest.approx(expected)


def test_the_summary_names_grid_choice_seed_and_what_was_held_out(config, probed):
    summary = read_json(Path(config.output_dir) / "summary.json")
    chosen = summary["heads"]["linear_grid, mtm"]
    assert summary["seed"] == 0
    assert chosen["grid"]["blr"] == [0.03, 0.3]
    assert len(chosen["held_out"]) == 2 * 3 * 2
    best = max(each["accuracy"] for each in chosen["held_out"])
    assert {**chosen["choice"], "accuracy": best} in [
        {name: value for name, value in each.items() if name != "cross_entropy"} for each in chosen["held_out"]
    ]
    assert summary["logistic"]["mtm"]["held_out"].keys() == {"0.01", "1.0"}


def test_few_labels_are_measured_for_several_choices_of_them(config, results):
    few = results[results.label_fraction < 1]
    assert set(few.train_images) == {3, 6}
    assert set(few.label_fraction) == {3 / 30, 6 / 30}
    few = few[few.train_images == 6]
    assert set(few.protocol) == {"linear", "knn3", "knn5"}
    assert few.groupby(["protocol", "init"]).seed.apply(list).map(tuple).unique().tolist() == [(0, 1)]
    summary = read_json(Path(config.output_dir) / "summary.json")["few_labels"]
    values = few[(few.protocol == "linear") & (few.init == "mtm")].value
    two = [each for each in summary if each["train_images"] == 6]
    (row,) = [each for each in two if (each["protocol"], each["init"]) == ("linear", "mtm")]
    assert row["mean"] == pytest.approx(values.mean())
    assert row["std"] == pytest.approx(values.std())
    assert row["seeds"] == 2


def test_few_labels_are_of_every_class_and_lie_within_more_of_them(config):
    whole = open_labelled(config.store)
    parts = [labels_per_class(whole, count, seed=1) for count in (1, 4, 10)]
    assert [np.bincount(each.targets).tolist() for each in parts] == [[1, 1, 1], [4, 4, 4], [10, 9, 8]]
    assert set(parts[0].rows) < set(parts[1].rows) < set(parts[2].rows)
    assert np.bincount(label_fraction(whole, 0.25, seed=1).targets).tolist() == [3, 2, 2]
    assert np.bincount(label_fraction(whole, 0.01, seed=1).targets).tolist() == [1, 1, 1]
    assert set(labels_per_class(whole, 4, seed=2).rows) != set(parts[1].rows)


def test_a_probe_never_sees_labels_of_the_test_set_before_it_measures(config, tmp_path):
    rows = open_labelled(config.eval_store)
    tiny.make_store(
        tmp_path / "shuffled", rows.store.ids(range(12)), labels=(rows.labels + 1) % 3, keys=rows.store.keys()
    )
    quick = replace(
        config, features=("mtm",), protocols=("linear", "linear_grid", "attentive"), shots=(), label_seeds=1
    )
    chosen, measured = [], []
    for name, store in (("true", config.eval_store), ("false", str(tmp_path / "shuffled"))):
        stage.probe(replace(quick, eval_store=store, output_dir=str(tmp_path / name)))
        summary = read_json(tmp_path / name / "summary.json")
        measured.append(summary.pop("accuracy"))
        summary.pop("took")
        chosen.append(summary)
    assert chosen[0] == chosen[1]
    assert measured[0] != measured[1]


def test_heads_learn_from_augmented_views_where_that_is_asked_for(config, tmp_path):
    quick = replace(config, features=("mtm",), protocols=("linear_grid", "attentive"), augmented=True)
    stage.probe(replace(quick, output_dir=str(tmp_path), shots=()))
    assert list(read_results([tmp_path]).protocol) == ["linear_grid_augmented", "attentive_augmented"]


@pytest.mark.slow
def test_two_and_three_processes_make_the_features_and_numbers_of_one(stores, tmp_path):
    flags = {
        "store": stores / "train", "eval_store": stores / "test", "weights": tiny.make_mtm(tmp_path / "mtm"),
        "protocols": "[linear, knn, linear_grid, attentive]", "neighbours": "[3]", "logistic_solver": "device",
        "inverse_regularisation": "[0.1]", "batch_size": 5, "mixed_precision": "no", "heads.blr": "[0.1]",
        "heads.weight_decay": "[0.0]", "heads.steps": 3, "shots": "[2]", "label_seeds": 1,
    }  # fmt: skip
    launches = [
        {"processes": count, "argv": [f"--{name}={value}" for name, value in flags.items()] + [
            f"--output_dir={tmp_path / str(count)}", f"--heads.batch_size={12 // count}"
        ]}
        for count in (1, 2, 3)
    ]  # fmt: skip
    words = ["seitpp.finetune.probe", "probe", "ProbeConfig", json.dumps(launches)]
    done = tiny.run(tiny.TESTS / "stage_processes.py", *words, timeout=300)
    assert done.returncode == 0, done.stderr
    for each, launch in zip(json.loads(done.stdout), launches, strict=True):
        assert each["codes"] == [0] * launch["processes"], each["said"]
    features = [
        {path.name: np.load(path) for path in (tmp_path / str(n) / "features").glob("*.npy")} for n in (1, 2, 3)
    ]
    assert sorted(len(each) for each in features[0].values()) == [15, 40]
    tables = [read_results([tmp_path / str(count)]) for count in (1, 2, 3)]
    for others, table in zip(features[1:], tables[1:], strict=True):
        assert others.keys() == features[0].keys()
        for name, numbers in features[0].items():
            assert others[name] == pytest.approx(numbers, abs=1e-5)
        assert list(table.protocol) == list(tables[0].protocol)
        assert table.value.to_numpy() == pytest.approx(tables[0].value.to_numpy())


def test_a_finished_probe_is_not_run_again(config, probed, capsys):
    stage.probe(config)
    assert "finished before, nothing to do" in capsys.readouterr().out


def test_weights_of_another_tokenizer_are_refused(config, tmp_path):
    other = tiny.make_mtm(tmp_path / "mtm", fingerprint="b" * 64)
    with pytest.raises(UserError, match="tokenizer bbbbbbbbbbbb"):
        stage.probe(replace(config, weights=str(other), features=("mtm",), output_dir=str(tmp_path / "run")))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"held_out": 0.0}, "held_out = 0.0"), ({"neighbours": (0,)}, "leave it out of protocols"),
        ({"protocols": ()}, "protocols"), ({"shots": (0,)}, "shots"), ({"label_fractions": (1.0,)}, "label_fractions"),
        ({"inverse_regularisation": (0.0,)}, "inverse_regularisation"), ({"batch_size": 0}, "batch_size"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_are_refused(config, fields, message):
    with pytest.raises(UserError, match=message):
        replace(config, **fields)
