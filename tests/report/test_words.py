"""Words for people, made of identifiers."""

import pytest

from seitpp.report import words
from seitpp.report.methods import Method


@pytest.mark.parametrize(
    ("protocol", "init", "kind", "name"),
    [
        ("finetune", "mtm", "pretrained", "fine-tuned from MTM"),
        ("finetune", "scratch", "scratch", "from scratch"),
        ("finetune", "", "pretrained", "fine-tuned"),
        ("finetune", "next_token", "pretrained", "fine-tuned from next token"),
        ("linear", "mtm", "frozen", "linear probe, MTM encoder"),
        ("linear", "random", "baseline", "linear probe, random encoder"),
        ("linear", "bag-of-tokens", "baseline", "linear probe, bag of tokens"),
        ("linear", "pixels", "baseline", "linear probe, 16 x 16 pixels"),
        ("knn10", "mtm", "frozen", "10-NN, MTM encoder"),
        ("knn3", "random", "baseline", "3-NN, random encoder"),
        ("majority", "", "baseline", "majority class"),
        ("naive_bayes", "hand_made", "baseline", "naive bayes, hand made"),
    ],
)
def test_a_method_has_a_kind_and_a_name(protocol, init, kind, name):
    method = Method(protocol=protocol, init=init)
    assert method.kind == kind
    assert words.method(method) == name
    assert words.method_names([method]) == {method: name}


@pytest.mark.parametrize(
    ("init", "augmentation", "name"),
    [
        ("scratch", "", "from scratch"),
        ("mtm", "", "MTM"),
        ("mtm", "tokenadapt", "MTM + TokenAdapt"),
        ("mtm", "tokenadapt+coloradapt", "MTM + TokenAdapt + ColorAdapt"),
        ("mtm", "emb_noise", "MTM + emb noise"),
    ],
)
def test_a_start_names_what_pre_training_was_augmented_with(init, augmentation, name):
    assert words.start(init, augmentation) == name


def test_names_say_what_differs_between_methods_and_nothing_else():
    tuned = {"protocol": "finetune", "init": "mtm"}
    plain, both = (Method(**tuned, augmentation=each, label_fraction=0.2) for each in ("", "tokenadapt+coloradapt"))
    scratch = Method(protocol="finetune", init="scratch", label_fraction=0.2)
    assert list(words.method_names([plain, both, scratch]).values()) == [
        "fine-tuned from MTM", "fine-tuned from MTM + TokenAdapt + ColorAdapt", "from scratch"
    ]  # fmt: skip
    assert words.method_names([both, scratch])[both] == "fine-tuned from MTM"
    fractions = [Method(**tuned, label_fraction=each) for each in (1.0, 0.075)]
    assert list(words.method_names(fractions).values()) == [
        "fine-tuned from MTM, 100 % of the labels", "fine-tuned from MTM, 7.5 % of the labels"
    ]  # fmt: skip
    budgets = [Method(**tuned, budget_bytes=each) for each in (None, 1_500_000)]
    assert list(words.method_names(budgets).values()) == [
        "fine-tuned from MTM, all tokens", "fine-tuned from MTM, 1.5 MB of tokens"
    ]  # fmt: skip
    stored = [Method(**tuned, storage=each) for each in ("", "jpeg10")]
    assert list(words.method_names(stored).values()) == [
        "fine-tuned from MTM, on tokens", "fine-tuned from MTM, on JPEGs of quality 10"
    ]  # fmt: skip
    both = [Method(**tuned, storage="jpeg75", budget_bytes=each) for each in (None, 20_000)]
    assert list(words.method_names(both).values()) == [
        "fine-tuned from MTM, all JPEGs of quality 75", "fine-tuned from MTM, 20 kB of JPEGs of quality 75"
    ]  # fmt: skip
    runs = [Method(**tuned, run=each) for each in ("one", "two")]
    assert list(words.method_names(runs).values()) == ["fine-tuned from MTM (one)", "fine-tuned from MTM (two)"]
    probes = [Method(protocol="linear", init="mtm", augmentation=each) for each in ("", "coloradapt")]
    assert words.method_names(probes)[probes[1]] == "linear probe, MTM + ColorAdapt encoder"


@pytest.mark.parametrize(
    ("levels", "said"),
    [((), ""), ((3,), "severity 3"), ((5, 1, 3), "average over severities 1, 3, 5")],
)
def test_severities_are_said_in_order(levels, said):
    assert words.severities(levels) == said


@pytest.mark.parametrize(
    ("protocol", "shift", "said"),
    [
        ("finetune", "", "fine-tuning"),
        ("knn10", "", "10-NN"),
        ("finetune", "gaussian_noise", "gaussian noise"),
        ("linear", "gaussian_noise", "linear probe, gaussian noise"),
    ],
)
def test_a_column_of_the_ablation_is_a_protocol_or_a_shift(protocol, shift, said):
    assert words.measure(protocol, shift) == said


def test_shifts_are_said_with_spaces_and_none_is_clean():
    assert [words.shift(each) for each in ("", "gaussian_noise", "sketch")] == ["clean", "gaussian noise", "sketch"]


@pytest.mark.parametrize(
    ("name", "said"),
    [("", "tokens"), ("jpeg75", "JPEGs of quality 75"), ("jpeg75_side32", "JPEGs of quality 75, 32 pixels a side"),
     ("jpeg_fit", "JPEGs of the quality that fits"),
     ("jpeg75_side_fit", "JPEGs of quality 75, of the side that fits"), ("web_p", "web p")],
)  # fmt: skip
def test_how_images_are_stored_is_said(name, said):
    assert words.storage(name) == said


def test_numbers_have_one_decimal_and_a_true_minus_sign():
    assert words.percent(0.58) == "58.0"
    assert words.percent(0.5796, 0.0034) == "58.0 ± 0.3"
    assert words.points(-0.018) == "\u22121.8"
    assert words.points(0.062, 0.0067) == "+6.2 ± 0.7"
    assert [words.size(each) for each in (999, 4321, 2_810_000, 3e9)] == ["999 bytes", "4.32 kB", "2.81 MB", "3 GB"]
