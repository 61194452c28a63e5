"""The ablation: the same for every ingredient but what it is about, paired by seed, and to be stopped at any time."""

import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import tiny
from seitpp.downstream.ablation import AblationConfig, drop_checkpoints, forget_runs, main, read_inputs, write_fraction
from seitpp.downstream.ablation_steps import INGREDIENTS, augment_of, folder_of_step, make_steps
from seitpp.downstream.ablation_table import ablation_table
from seitpp.downstream.robustness import RobustnessConfig
from seitpp.finetune.labelled import open_labelled
from seitpp.finetune.probe import ProbeConfig
from seitpp.finetune.train import FinetuneConfig
from seitpp.mtm.augmentation.augment import AugmentConfig
from seitpp.mtm.pretrain import PretrainConfig
from seitpp.report.report import write_report
from seitpp.runtime.command import parse
from seitpp.runtime.config import StageConfig
from seitpp.runtime.errors import UserError
from seitpp.runtime.results import Result, read_results, results_table
from seitpp.runtime.run_folder import RunFolder
from seitpp.runtime.steps.step import Step
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.store import TokenStore

LABELS = [0] * 10 + [1] * 6 + [2] * 4 + [-1] * 4
STAGES = {
    "pretrain": PretrainConfig, "finetune": FinetuneConfig, "probe": ProbeConfig, "robustness": RobustnessConfig,
}  # fmt: skip
RECIPES = {
    "pretrain": {
        "model": {
            "encoder": {"width": 24, "depth": 1, "heads": 3, "embedding_std": 0.5},
            "decoder": {"width": 16, "depth": 1, "heads": 2},
        },
        "steps": 3,
        "batch_size": 4,
        "lr": 1e-3,
        "trackers": [],
        "augment": {"crop": False, "color_adapt": 0.5},
    },
    "finetune": {"steps": 3, "batch_size": 4, "lr": 1e-3, "trackers": [], "augment": {"crop": False}},
    "probe": {"inverse_regularisation": [0.1], "neighbours": [3]},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with two stores, TokenAdapt and small recipes."""
    folder = tmp_path_factory.mktemp("ablation")
    tiny.make_store(folder / "train", tiny.striped_ids(np.maximum(LABELS, 0), tiny.GRID), labels=LABELS)
    tiny.make_store(folder / "test", tiny.striped_ids(np.arange(9) % 3, tiny.GRID, seed=1))
    tiny.make_token_adapt(folder / "tokenadapt")
    for stage, content in RECIPES.items():
        (folder / f"{stage}.yaml").write_text(yaml.safe_dump(content))
    return folder


def make_config(world, output_dir):
    return AblationConfig(
        store=str(world / "train"), eval_store=str(world / "test"), token_adapt=str(world / "tokenadapt"),
        pretrain=str(world / "pretrain.yaml"), finetune=str(world / "finetune.yaml"),
        probe=str(world / "probe.yaml"), seeds=2, label_fractions=(1.0, 0.5), output_dir=str(output_dir),
    )  # fmt: skip


@pytest.fixture
def config(world, tmp_path):
    return make_config(world, tmp_path / "run")


def steps_of(config):
    """{name: Step}."""
    return {step.name: step for step in make_steps(config, read_inputs(config)[2])}


def parsed(step):
    """What a step's command tells its stage."""
    _, stage, *words = step.command
    return parse(STAGES[stage], words, recipes=stage)


@pytest.fixture(scope="module")
def told(world):
    """{name of a step: what its command tells its stage}."""
    return {name: parsed(step) for name, step in steps_of(make_config(world, "runs/mine")).items()}


# Steps


@pytest.mark.parametrize(
    ("ingredient", "token_adapt", "color_adapt"),
    [("mtm", None, 0.0), ("tokenadapt", "runs/ta", 0.0), ("coloradapt", None, 0.3), ("all", "runs/ta", 0.3)],
)
def test_an_ingredient_switches_its_parts_and_keeps_the_rest_of_the_recipe(ingredient, token_adapt, color_adapt):
    recipe = AugmentConfig(color_adapt=0.3, noise=0.1, crop=False, token_adapt="another")
    expected = {**asdict(recipe), "token_adapt": token_adapt, "color_adapt": color_adapt}
    assert asdict(augment_of(ingredient, recipe, "runs/ta")) == expected


def test_every_step_has_its_own_name_and_needs_only_steps_before_it(config):
    steps = make_steps(config, read_inputs(config)[2])
    names = [step.name for step in steps]
    assert len(set(names)) == len(names) == 2 * (4 + 2 * 2 * 5)  # of a seed: pre-trainings; on two shares two of each
    for place, step in enumerate(steps):
        assert set(step.after) <= set(names[:place])


def test_a_seed_is_that_of_all_its_runs(told):
    for name, run in told.items():
        assert f"seed {run.seed}" in name
        assert f"/seed-{run.seed}/" in run.output_dir


def test_pre_trainings_differ_in_their_ingredient_alone(world, told):
    runs = {name: replace(told[f"{name}, seed 1, pre-training"], output_dir="") for name in list(INGREDIENTS)[1:]}
    recipe = replace(runs["all"].augment, token_adapt=None)
    assert recipe == AugmentConfig(crop=False, color_adapt=0.5)
    for ingredient, run in runs.items():
        assert run.augment == augment_of(ingredient, recipe, str(world / "tokenadapt"))
        assert replace(run, augment=recipe) == replace(runs["all"], augment=recipe)
        assert run.store == str(world / "train")


def test_fine_tunings_differ_in_their_start_alone(told):
    runs = {name: told[f"{name}, seed 0, fine-tuning, fraction 0.5"] for name in INGREDIENTS}
    assert runs["scratch"].weights is None
    assert runs["all"].weights == told["all, seed 0, pre-training"].output_dir
    shape = told["all, seed 0, pre-training"].model.encoder
    assert (runs["scratch"].encoder, runs["scratch"].view) == (shape, tiny.GRID)
    own = {"weights": None, "encoder": shape, "view": None, "output_dir": ""}
    assert len({json.dumps(asdict(replace(run, **own))) for run in runs.values()}) == 1


def test_labels_are_shared_by_all_ingredients_of_a_seed(world, told):
    read = {}
    for name, run in told.items():
        if "fraction" in name:
            read.setdefault((run.seed, name.split(", ")[3]), set()).add(run.store)
    whole = str(world / "train")
    assert read == {
        (0, "fraction 1"): {whole}, (0, "fraction 0.5"): {"runs/mine/seed-0/labels-0.5"},
        (1, "fraction 1"): {whole}, (1, "fraction 0.5"): {"runs/mine/seed-1/labels-0.5"},
    }  # fmt: skip


def test_a_probe_from_scratch_is_of_the_same_encoder_at_its_start(told):
    scratch, trained = (told[f"{name}, seed 0, probe, fraction 1"] for name in ("scratch", "mtm"))
    assert (scratch.features, trained.features) == (("random",), ("mtm",))
    assert scratch.encoder == told["mtm, seed 0, pre-training"].model.encoder
    assert scratch.view == tiny.GRID
    assert trained.weights == told["mtm, seed 0, pre-training"].output_dir


def test_robustness_is_measured_on_all_classifiers_of_a_share_at_once(config):
    robust = replace(
        config, images="photos, all", tokenizer="runs/t", domains={"sketch": "lines"}, label_fractions=(0.5,)
    )
    step = {step.name: step for step in make_steps(robust, read_inputs(replace(robust, images=None, domains={}))[2])}[
        "seed 1, robustness, fraction 0.5"
    ]
    run = parsed(step)
    assert run.classifiers == tuple(f"{config.output_dir}/seed-1/{name}/finetune-0.5" for name in INGREDIENTS)
    assert (run.images, run.domains) == ("photos, all", {"sketch": "lines"})
    assert step.after == tuple(f"{name}, seed 1, fine-tuning, fraction 0.5" for name in INGREDIENTS)


@pytest.mark.parametrize(
    ("rows", "batch_size", "accum_iter", "expected"),
    [(1149, 128, 1, 128), (230, 128, 1, 76), (230, 64, 1, 64), (230, 64, 2, 36), (13, 64, 1, 4), (11, 64, 1, 2)],
)
def test_batches_shrink_to_a_third_of_what_a_step_learns_from(config, rows, batch_size, accum_iter, expected):
    recipes = read_inputs(replace(config, label_fractions=(1.0,)))[2]
    finetune = replace(recipes.finetune, batch_size=batch_size, accum_iter=accum_iter)
    steps = make_steps(
        replace(config, label_fractions=(1.0,), ingredients=("mtm",), seeds=1),
        replace(recipes, finetune=finetune, labelled={1.0: rows}),
    )
    (words,) = (step.command for step in steps if "fine-tuning" in step.name)
    given = dict(zip(words[2::2], words[3::2], strict=True)).get("--batch_size", str(batch_size))
    assert int(given) == expected


def test_a_rehearsal_takes_few_steps_of_everything(config):
    for step in steps_of(replace(config, quick=True, seeds=1, label_fractions=(0.5,), ingredients=("all",))).values():
        run = parsed(step)
        assert isinstance(run, ProbeConfig) or (run.steps, run.warmup_steps) == (10, 2)


def test_a_step_knows_the_folder_of_its_run(told, world):
    for name, step in steps_of(make_config(world, "runs/mine")).items():
        assert str(folder_of_step(step)) == told[name].output_dir


# Shares of the labels


def counts(store):
    return dict(Counter(store.labels.tolist()))


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.2, {0: 2, 1: 1, 2: 1}), (0.5, {0: 5, 1: 3, 2: 2}), (0.01, {0: 1, 1: 1, 2: 1}), (0.99, {0: 9, 1: 5, 2: 3})],
)
def test_a_share_of_the_labels_is_a_share_of_each_class(world, tmp_path, share, expected):
    write_fraction(tmp_path, open_labelled(world / "train"), share, seed=0)
    store = TokenStore(tmp_path)
    store.verify()
    assert counts(store) == expected
    assert store.classes == ["ant", "bee", "cow"]


def test_a_seed_draws_its_own_labels_and_a_smaller_share_lies_within_a_larger_one(world, tmp_path):
    labelled = open_labelled(world / "train")
    keys = {}
    for name, share, seed in (("a", 0.5, 0), ("again", 0.5, 0), ("small", 0.2, 0), ("other", 0.5, 1)):
        write_fraction(tmp_path / name, labelled, share, seed=seed)
        keys[name] = TokenStore(tmp_path / name).keys()
    assert keys["a"] == keys["again"]
    assert set(keys["small"]) < set(keys["a"]) != set(keys["other"])


def test_a_share_of_another_task_follows_its_table(world, tmp_path):
    rows = [f"{row:04d}.png,{'odd' if row % 2 else 'even'}" for row in range(12)]  # of test rows, too: 9 have the names
    (tmp_path / "labels.csv").write_text("\n".join(["key,label", *rows]))
    labelled = open_labelled(world / "train", tmp_path / "labels.csv")
    write_fraction(tmp_path / "part", labelled, 0.5, seed=0)
    part = open_labelled(tmp_path / "part", tmp_path / "labels.csv")
    assert part.classes == ["even", "odd"]
    assert np.bincount(part.targets).tolist() == [3, 3]


# Tables


METHODS = {"scratch": ("scratch", ""), "mtm": ("mtm", ""), "all": ("mtm", "tokenadapt+coloradapt")}


def rows_of(values, **fields):
    """Rows of the schema: {ingredient: a value a seed}."""
    same = {"dataset": "t", "metric": "accuracy", "protocol": "finetune", "train_images": 1234, "test_images": 50}
    return results_table(
        Result(
            **{**same, **dict(zip(("init", "augmentation"), METHODS[name], strict=True)), **fields}, seed=seed, value=v
        )
        for name, each in values.items()
        for seed, v in enumerate(each)
    )


def cell(table, ingredient):
    return table.set_index(["init", "augmentation"]).loc[METHODS[ingredient]]


def test_differences_are_paired_by_seed():
    rows = rows_of({"all": [0.5, 0.7, 0.6], "mtm": [0.4, 0.5, 0.6]})
    table = ablation_table(rows.sample(frac=1.0, random_state=0))
    found = cell(table, "all")
    assert found["mean"] == pytest.approx(0.6)
    assert found["std"] == pytest.approx(0.1)
    assert found["difference"] == pytest.approx(0.1)  # 0.1, 0.2, 0.0
    assert found["difference_std"] == pytest.approx(0.1)
    assert found["seeds"] == 3
    assert np.isnan(cell(table, "mtm")["difference"])


def test_of_one_seed_there_is_no_std():
    (row,) = ablation_table(rows_of({"scratch": [0.5]})).to_dict("records")
    assert row["mean"] == 0.5
    assert np.isnan([row["std"], row["difference"], row["difference_std"]]).all()


def test_a_probe_of_the_untrained_encoder_is_the_control_of_training_from_scratch():
    table = ablation_table(rows_of({"scratch": [0.3, 0.4]}, init="random", protocol="linear"))
    assert table[["init", "protocol", "mean"]].values.tolist() == [["scratch", "linear", pytest.approx(0.35)]]


def test_severities_of_a_shift_are_averaged_and_label_fractions_and_metrics_kept_apart():
    parts = [
        rows_of({"mtm": [0.2, 0.4]}, shift="contrast", severity=1),
        rows_of({"mtm": [0.0, 0.2]}, shift="contrast", severity=5),
        rows_of({"mtm": [0.9, 0.9]}, label_fraction=0.2), rows_of({"mtm": [1.5, 1.5]}, metric="cross_entropy"),
    ]  # fmt: skip
    table = ablation_table(pd.concat(parts))
    assert table[["label_fraction", "shift", "metric", "mean"]].values.tolist() == [
        [1.0, "contrast", "accuracy", pytest.approx(0.2)], [0.2, "", "accuracy", 0.9], [1.0, "", "cross_entropy", 1.5],
    ]  # fmt: skip


def test_in_one_lane_the_stages_are_called_and_give_what_processes_give(config):
    small = replace(config, seeds=1, label_fractions=(0.5,), ingredients=("scratch", "mtm"))
    tables = []
    for lanes in (1, 2):
        run = replace(small, lanes=lanes, output_dir=f"{config.output_dir}-{lanes}")
        main(run)
        tables.append(read_results([run.output_dir]).drop(columns="run"))
        assert len(finished(Path(run.output_dir))) == 5
        assert any(Path(run.output_dir).glob("logs/*")) == (lanes == 2)
    assert len(tables[0]) == 2 * (2 + 2)
    pd.testing.assert_frame_equal(*tables)


# Bad input


@pytest.mark.parametrize(
    ("changes", "matters"),
    [
        ({"ingredients": ("mtm", "tokenadpt")}, r"'tokenadpt'; did you mean tokenadapt\?"),
        ({"ingredients": ("wavelets",)}, "there are: scratch, mtm, tokenadapt, coloradapt, all"),
        ({"ingredients": ("mtm", "mtm")}, "must name one or more, each once"),
        ({"ingredients": ()}, "must name one or more, each once"),
        ({"label_fractions": (1.0, 0.0)}, r"label_fractions = \(1.0, 0.0\) must lie in \(0, 1\]"),
        ({"label_fractions": (1.5,)}, r"must lie in \(0, 1\]"),
        ({"label_fractions": (0.5, 0.5)}, "must name one or more, each once"),
        ({"seeds": 0}, "must be at least 1"),
        ({"lanes": 0}, "must be at least 1"),
        ({"images": "photos"}, "images = 'photos' needs --tokenizer"),
        ({"domains": {"sketch": "lines"}}, "needs --images"),
    ],
)
def test_impossible_values_are_refused_by_name(config, changes, matters):
    with pytest.raises(UserError, match=matters):
        replace(config, **changes)


def test_what_does_not_fit_is_said_before_anything_is_written(config, world, tmp_path):
    other = tiny.make_token_adapt(tmp_path / "other", fingerprint="b" * 64)
    larger = tiny.make_token_adapt(tmp_path / "larger", grid=(6, 6), view=(6, 6))
    bare = tiny.make_store(tmp_path / "bare", tiny.random_ids(6, tiny.CODES, tiny.GRID), labels=[-1] * 6)
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump({"augment": {"crop": False}}))
    for changes, matters in (
        ({"token_adapt": None}, r"tokenadapt needs --token_adapt.*without it: --ingredients '\[scratch, mtm, col"),
        ({"token_adapt": str(other)}, rf"TokenAdapt in {other} belongs to tokenizer bbbbbbbbbbbb"),
        ({"token_adapt": str(larger)}, r"takes \(6, 6\) tokens to \(6, 6\); this training needs \(4, 6\) to \(4, 6\)"),
        ({"token_adapt": str(tmp_path)}, "holds no weights"),
        ({"store": str(bare)}, "has labels of fewer than two classes"),
        ({"store": str(tmp_path / "nothing")}, "is not a token store"),
        ({"pretrain": "dmeo"}, "--pretrain dmeo: no recipe dmeo for this stage; did you mean demo?"),
        ({"finetune": str(world / "probe.yaml")}, "--finetune .*unknown key inverse_regularisation"),
        ({"pretrain": str(tmp_path / "plain.yaml")}, "has no ColorAdapt to switch on for coloradapt"),
        ({"images": str(tmp_path / "photos"), "tokenizer": "t"}, "photos is not a folder of images"),
    ):
        with pytest.raises(UserError, match=matters) as caught:
            main(replace(config, **changes))
        assert "\n" not in str(caught.value)
        assert not Path(config.output_dir).exists()


def test_images_of_another_tokenizer_are_refused(config, images, tokenizer_folder):
    with pytest.raises(UserError, match=r"the tokenizer in .* belongs to tokenizer"):
        main(replace(config, images=str(images), tokenizer=str(tokenizer_folder)))


def test_images_too_small_for_corruptions_are_refused_before_anything_runs(config, images, tokenizer_folder):
    fingerprint = load_tokenizer(tokenizer_folder).fingerprint
    places = {}
    for name in ("store", "eval_store"):
        ids = tiny.random_ids(12, tiny.CODES, tiny.GRID)
        places[name] = str(tiny.make_store(Path(config.output_dir).parent / name, ids, fingerprint=fingerprint))
    ablation = replace(config, **places, ingredients=("scratch",), images=str(images), tokenizer=str(tokenizer_folder))
    with pytest.raises(UserError, match="at least 32 pixels a side, this tokenizer reads 16 x 24: leave out --images"):
        main(ablation)
    assert not Path(config.output_dir).exists()


def test_a_folder_of_another_ablation_is_refused(config, tmp_path):
    RunFolder(config, stage="downstream.ablation").log({"step": 0})
    with pytest.raises(UserError, match=r"run holds another run \(ingredients: .*\): choose another --output_dir"):
        main(replace(config, ingredients=("mtm",), seeds=5))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text("stage: mtm.pretrain\noutput_dir: x\nresume: auto\nseed: 0\n")
    (tmp_path / "other" / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="holds another run"):
        main(replace(config, output_dir=str(tmp_path / "other")))


def test_a_fresh_start_forgets_the_former_runs_and_nothing_else(config):
    folder = Path(config.output_dir)
    for name in ("seed-0/mtm/pretrain", "seed-7", "seed-7/mtm/probe-1", "seed-data"):
        run = replace(config, output_dir=str(folder / name))
        if name != "seed-data":
            RunFolder(run, stage="mtm.pretrain").log({"step": 0})
    train_set, _, _ = read_inputs(config)
    write_fraction(folder / "seed-7" / "labels-0.5", train_set, 0.5, seed=7)
    for name in ("logs", "mine", "seed-data"):
        (folder / name).mkdir()
    for name in ("ablation.csv", "notes.txt", "logs/seed-0-a-probe.log", "logs/mine.log", "seed-data/a.png"):
        (folder / name).write_text("")
    (folder / "commands.jsonl").write_text('{"stage": "seed 0, a probe", "finished": true}\n')
    (folder / "seed-0" / "mtm" / "notes.txt").write_text("")
    forget_runs(folder, "ablation.csv")
    left = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert left == ["logs/mine.log", "notes.txt", "seed-0/mtm/notes.txt", "seed-data/a.png"]
    assert sorted(path.name for path in folder.iterdir()) == ["logs", "mine", "notes.txt", "seed-0", "seed-data"]


def test_only_the_checkpoints_of_runs_are_dropped(tmp_path):
    run = StageConfig(output_dir=str(tmp_path / "run" / "seed-0"))
    RunFolder(run, stage="finetune.train/once").log({"step": 0})
    for name in ("run/seed-0/checkpoints/step-00000003", "run/seed-0/checkpoints/mine", "run/mine/checkpoints/step-1"):
        (tmp_path / name).mkdir(parents=True)
    drop_checkpoints(Step(name="", after=(), command=("seitpp", str(tmp_path / "run")), seconds=1))
    left = {path.relative_to(tmp_path / "run").as_posix() for path in tmp_path.rglob("checkpoints/*")}
    assert left == {"seed-0/checkpoints/mine", "mine/checkpoints/step-1"}


# The whole


def start(config, world, *flags):
    """The ablation of plain MTM and of all together, as a process."""
    words = [
        *("--store", config.store, "--eval_store", config.eval_store, "--token_adapt", config.token_adapt),
        *("--pretrain", config.pretrain, "--finetune", config.finetune, "--probe", config.probe),
        *("--ingredients", "[mtm, all]", "--label_fractions", "[1, 0.5]", "--output_dir", config.output_dir),
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "seitpp.cli", "ablation", *words, *flags], cwd=tiny.ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finished(folder):
    log = folder / "commands.jsonl"
    records = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return {record["stage"]: record for record in records if record["finished"]}


def measured(folder, ingredient, fraction, kind, protocol, metric="accuracy"):
    """The numbers in the runs' own results.csv, a seed each."""
    table = read_results(folder / f"seed-{seed}" / ingredient / f"{kind}-{fraction}" for seed in (0, 1))
    return table[(table.protocol == protocol) & (table.metric == metric)].value.to_numpy()


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_with_another_seed_and_the_table_is_that_of_the_single_runs(config, world):
    folder = Path(config.output_dir)
    killed = start(config, world, "--seeds", "1", "--lanes", "2")
    deadline = time.monotonic() + 300
    while len(finished(folder)) < 3:
        assert killed.poll() is None, killed.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    killed.kill()
    killed.communicate()
    before = finished(folder)
    assert 3 <= len(before) < 10
    whole = start(config, world, "--seeds", "2", "--lanes", "1")  # the rest in one process, which is quicker
    said = whole.communicate(timeout=580)[0]
    assert whole.returncode == 0, said
    after = finished(folder)
    assert len(after) == 2 * 2 * (1 + 2 * 2)
    assert {name: after[name] for name in before} == before  # none was run again

    table = pd.read_csv(
        folder / "ablation.csv", keep_default_na=False, na_values={"difference": "", "difference_std": ""}
    )
    assert len(table) == 2 * 2 * (2 + 2)
    table = table.set_index(["label_fraction", "protocol", "metric", "augmentation"])
    for fraction, directory in ((1.0, "1"), (0.5, "0.5")):
        for kind, protocol, metric in (
            ("finetune", "finetune", "accuracy"), ("finetune", "finetune", "cross_entropy"),
            ("probe", "linear", "accuracy"), ("probe", "knn3", "accuracy"),
        ):  # fmt: skip
            values = {each: measured(folder, each, directory, kind, protocol, metric) for each in ("mtm", "all")}
            for ingredient, found in values.items():
                row = table.loc[(fraction, protocol, metric, METHODS[ingredient][1])]
                assert row["mean"] == pytest.approx(found.mean())
                assert row["std"] == pytest.approx(found.std(ddof=1))
                assert (row["seeds"], row["train_images"], row["test_images"]) == (2, 20 * fraction, 9)
            difference = values["all"] - values["mtm"]
            row = table.loc[(fraction, protocol, metric, METHODS["all"][1])]
            assert row["difference"] == pytest.approx(difference.mean())
            assert row["difference_std"] == pytest.approx(difference.std(ddof=1))
    assert len([*folder.rglob("weights")]) == 2 * 2 * (1 + 2)  # each pre-training's and fine-tuning's
    assert not [*folder.rglob("checkpoints")]
    # One pre-training is not the other, neither by ingredient nor by seed.
    losses = {
        json.loads((folder / f"seed-{seed}" / name / "pretrain" / "summary.json").read_text())["eval_cross_entropy"]
        for seed in (0, 1)
        for name in ("mtm", "all")
    }
    assert len(losses) == 4

    write_report([folder], folder.parent / "report.html")
    written, own = (read_results([each]).drop(columns="run") for each in (folder.parent, folder))
    pd.testing.assert_frame_equal(written, own)
    assert "MTM + TokenAdapt + ColorAdapt" in (folder.parent / "report.html").read_text()

    again = replace(config, ingredients=("mtm", "all"))
    recipe = Path(config.finetune).read_text()
    try:
        Path(config.finetune).write_text(recipe.replace("steps: 3", "steps: 4"))
        with pytest.raises(UserError, match=r"\(finetune: .* is another since, .* there, .* now\)"):
            main(again)
    finally:
        Path(config.finetune).write_text(recipe)
