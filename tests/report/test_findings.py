"""Sentences on pre-training: true whichever way the numbers go."""

import pytest

from report_runs import MTM, PIXELS, measured, report, write_finetuning, write_run
from seitpp.report import words
from seitpp.report.findings import (
    baseline_sentences,
    difference_sentence,
    entropy_sentence,
    not_improved,
    robustness_sentences,
    summary_sentence,
)
from seitpp.report.methods import Method
from seitpp.report.scores import Difference, Score, ShiftScores
from seitpp.report.words import method


def score(mean, std=None, *, init="mtm", protocol="finetune", seeds=3, test_images=50):
    each = Method(protocol=protocol, init=init)
    return Score(
        method=each, name=method(each), mean=mean, std=std, seeds=seeds, train_images=40, test_images=test_images
    )


def shifted(name, *found, shift=None):
    return ShiftScores(shift=name if shift is None else shift, severities=(), name=name, scores=list(found))


@pytest.mark.parametrize(
    ("pretrained", "scratch", "said"),
    [
        ((0.58, 0.003), (0.518, 0.006), ("+6.2 ± 0.7 points, 9.24 times", "over 3 seeds", "Pre-training helps here")),
        ((0.53, 0.006), (0.518, 0.006), ("+1.2 ± 0.8 points, 1.41 times", "Pre-training seems to help here")),
        ((0.5, 0.003), (0.518, 0.002), ("\u22121.8 ± 0.4 points, 4.99 times", "Pre-training hurts here")),
        ((0.51, 0.005), (0.518, 0.002), ("\u22120.8 ± 0.5 points, 1.49 times", "Pre-training seems to hurt here")),
        ((0.52, 0.02), (0.518, 0.01), ("+0.2 ± 2.2 points, within one", "over 3 seeds: no effect")),
        ((0.58, 0.0), (0.518, 0.0), ("+6.2 ± 0.0 points, with a standard deviation of 0", "Pre-training helps here")),
        ((0.58, None), (0.518, 0.01), ("+6.2 points. With one seed", "9.9 points on 50 test images", "may be chance")),
        (
            (0.9, None),
            (0.518, 0.01),
            ("+38.2 points. With one seed", "8.2 points on 50", "yet another seed may differ"),
        ),
    ],
)
def test_the_sentence_on_pre_training_is_true_for_either_sign(pretrained, scratch, said):
    sentence = difference_sentence(Difference(pretrained=score(*pretrained), scratch=score(*scratch, init="scratch")))
    for each in said:
        assert each in sentence


@pytest.mark.parametrize(
    ("pretrained", "scratch", "said"),
    [
        ((0.512, 0.01), (0.5, 0.006), "seems to rise from 50.0 ± 0.6 % (from scratch) to 51.2 ± 1.0 % (from MTM)"),
        ((0.488, 0.01), (0.5, 0.006), "seems to fall from 50.0 ± 0.6 % (from scratch) to 48.8 ± 1.0 % (from MTM)"),
        ((0.6, 0.01), (0.5, 0.01), "rises from 50.0 ± 1.0 % (from scratch) to 60.0 ± 1.0 % (from MTM)"),
        ((0.4, 0.01), (0.5, 0.01), "falls from 50.0 ± 1.0 % (from scratch) to 40.0 ± 1.0 % (from MTM)"),
        (
            (0.5, 0.01),
            (0.5, 0.01),
            "is 50.0 ± 1.0 % (from MTM) and 50.0 ± 1.0 % (from scratch), which differ by at most",
        ),
        ((0.6, None), (0.5, None), "is 60.0 % (from MTM) and 50.0 % (from scratch), with one seed"),
    ],
)
def test_the_summary_is_true_for_either_sign(pretrained, scratch, said):
    found = [score(*pretrained), score(*scratch, init="scratch")]
    assert summary_sentence("pets", found).startswith(f"Accuracy on pets {said}")
    assert summary_sentence("pets", found[:1]) == ""


@pytest.mark.parametrize(("mean", "said"), [(0.55, "%, which is higher."), (0.4, "%, which is as high."), (0.3, " %.")])
def test_the_summary_names_the_best_baseline_and_whether_it_is_beaten(mean, said):
    found = [score(0.5, init="scratch"), score(0.4), score(mean, init="pixels", protocol="linear")]
    sentence = summary_sentence("pets", found)
    assert f"({PIXELS}) reaches {100 * mean:.1f} %" in sentence
    assert sentence.endswith(said)


def test_when_pre_training_loses_the_page_says_so_at_its_top(tmp_path):
    write_finetuning(tmp_path / "runs" / "finetune", "mtm", (0.40, 0.41, 0.42))
    write_finetuning(tmp_path / "runs" / "scratch", "scratch", (0.50, 0.51, 0.52))
    baseline = measured("pixels", [0.55], protocol="linear")
    write_run(tmp_path / "runs" / "probe", "finetune.probe", summary={}, results=baseline)
    text = report(tmp_path / "runs").text
    top = text[: text.index("Pipeline Images are")]
    assert "Accuracy on pets falls from 51.0 ± 1.0 % (from scratch) to 41.0 ± 1.0 % (from MTM)" in top
    assert f"({PIXELS}) reaches 55.0 %, which is higher." in top
    assert "Pre-training hurts here." in text
    assert f"Pets, {MTM}" not in text
    assert f"pets, {MTM} against from scratch (\u221210.0 ± 1.4 points)" in text


def test_baselines_that_are_not_beaten_are_named():
    found = [
        score(0.6, init="pixels", protocol="linear"),
        score(0.58),
        score(0.5, init="", protocol="majority"),
        score(0.5, init="scratch"),
    ]
    ahead = "is ahead by no more than one standard deviation of"  # sqrt(.58 .42 / 50 + .5 .5 / 50) = 0.0995 > 0.08
    assert baseline_sentences(found) == [
        f"Fine-tuned from MTM does not beat: {PIXELS}.",
        f"Fine-tuned from MTM {ahead}: majority class.",
        f"From scratch does not beat: {PIXELS}; majority class.",
    ]
    assert baseline_sentences([score(0.58, 0.08), found[2]]) == [f"Fine-tuned from MTM {ahead}: majority class."]
    assert baseline_sentences([score(0.58, 0.07), found[2]]) == [
        f"Better than every simple baseline, the best of which is majority class (50.0 %): {MTM}."
    ]


def start(mean, augmentation, std=0.01):
    """A fine-tuning from MTM of an augmentation, which its name tells."""
    method = Method(protocol="finetune", init="mtm", augmentation=augmentation)
    name = f"fine-tuned from {words.start('mtm', augmentation)}"
    return Score(method=method, name=name, mean=mean, std=std, seeds=3, train_images=40, test_images=50)


@pytest.mark.parametrize("plain", [0.5, 0.7])
def test_the_headline_takes_the_start_with_most_augmentations_even_where_another_does_better(plain):
    both, one, none = start(0.6, "tokenadapt+coloradapt"), start(0.65, "tokenadapt"), start(plain, "")
    found = sorted([both, one, none, score(0.5, 0.01, init="scratch")], key=lambda each: -each.mean)
    assert summary_sentence("pets", found) == (
        "Accuracy on pets rises from 50.0 ± 1.0 % (from scratch) to 60.0 ± 1.0 % (from MTM + TokenAdapt + ColorAdapt), "
        "on 50 test images; fine-tuned from MTM + TokenAdapt reaches 65.0 ± 1.0 %; "
        f"fine-tuned from MTM reaches {100 * plain:.1f} ± 1.0 %."
    )


def test_tiles_and_pipeline_show_the_start_that_the_headline_names(tmp_path):
    for name, augmentation, accuracies in (("plain", "", (0.7, 0.71)), ("both", "tokenadapt+coloradapt", (0.6, 0.61))):
        rows = measured("mtm", accuracies, augmentation=augmentation)
        write_run(tmp_path / "runs" / name, "finetune.train", summary={}, dataset="pets", weights="x", results=rows)
    write_finetuning(tmp_path / "runs" / "scratch", "scratch", (0.5, 0.51))
    text = report(tmp_path / "runs").text
    assert "% accuracy 50.5 \u2192 60.5 from scratch \u2192 from MTM: +10.0 ± 1.0 points; 50 test images" in text
    assert "60 % Probe, fine-tune accuracy on pets, from MTM" in text


def test_a_probe_that_a_random_encoder_matches_is_not_an_improvement():
    probe, control = (score(mean, init=init, protocol="knn10") for mean, init in ((0.4, "mtm"), (0.41, "random")))
    phrase = "pets, 10-NN, MTM encoder (40.0 %) against 10-NN, random encoder (41.0 %)"
    assert not_improved("pets", [control, probe], []) == [phrase]
    assert not_improved("pets", [score(0.41, init="random", protocol="linear"), probe], []) == []


def test_a_probe_alone_can_show_what_pre_training_does_not_improve(tmp_path):
    probes = measured("mtm", [0.4], protocol="knn10", augmentation="tokenadapt")
    probes += measured("random", [0.5], protocol="knn10")
    page = report(write_run(tmp_path / "probe", "finetune.probe", summary={}, results=probes))
    assert 'id="not-improved"' in page.source
    assert "pets, 10-NN, MTM encoder (40.0 %) against 10-NN, random encoder (50.0 %)" in page.text


def test_shifts_on_which_pre_training_is_no_better_are_listed_and_the_clean_images_once():
    better, worse = score(0.6, 0.01), score(0.4, 0.01)
    scratch = score(0.5, 0.01, init="scratch")
    sets = [
        shifted("clean", scratch, worse, shift=""),
        shifted("fog", better, scratch),
        shifted("snow", scratch, worse),
    ]
    assert not_improved("pets", [scratch, worse], sets) == [
        f"pets, {MTM} against from scratch (\u221210.0 ± 1.4 points)",
        f"pets on snow images, {MTM} (\u221210.0 ± 1.4 points)",
    ]
    assert not_improved("pets", [], [shifted("fog", score(0.6), score(0.5, init="scratch"))]) == [
        f"pets on fog images, {MTM} (+10.0 points; one seed, so not known)"
    ]


def test_robustness_says_where_pre_training_is_better_and_where_worse():
    scratch = score(0.5, 0.01, init="scratch")
    sets = [
        shifted("fog", score(0.6, 0.01), scratch),
        shifted("snow", scratch, score(0.4, 0.01)),
        shifted("frost", scratch, score(0.5, 0.01)),
        shifted("rain", score(0.6), score(0.5, init="scratch")),
    ]
    better, even, worse, unknown = robustness_sentences(sets)
    assert "better" in better
    assert better.endswith("fog (+10.0 ± 1.4 points).")
    assert even.endswith("frost (+0.0 ± 1.4 points).")
    assert "worse" in worse
    assert worse.endswith("snow (\u221210.0 ± 1.4 points).")
    assert "one seed" in unknown
    assert unknown.endswith("rain (+10.0 points).")


def test_a_model_that_beats_no_baseline_is_said_to_beat_none():
    summary = {"eval_cross_entropy": 6.26, "unigram_baseline": 5.54, "position_baseline": 4.65}
    assert entropy_sentence(summary).endswith("4.65 (token frequencies at each position), so it beats neither.")
    summary["eval_cross_entropy"] = 5.0
    assert entropy_sentence(summary).endswith(", so it does not beat token frequencies at each position.")
    summary["eval_cross_entropy"] = 4.0
    assert "beat" not in entropy_sentence(summary)
    del summary["unigram_baseline"], summary["position_baseline"]
    assert entropy_sentence(summary) == "its cross-entropy is 4.00 nats per hidden token."
