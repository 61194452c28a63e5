"""Metrics of a classifier's answers, against slow loops and numbers written out."""

import numpy as np
import pandas as pd
import pytest
import torch

from seitpp.finetune.answers import Answers, _ranks
from seitpp.finetune.evaluation_files import write_confusion, write_per_class
from seitpp.finetune.metrics import (
    accuracy,
    accuracy_interval,
    calibration_error,
    confusion,
    mean_per_class,
    measures,
    top5,
    worst_mistakes,
)

NAMES = ["ant", "bee", "cow", "dog", "eel", "fox", "gnu"]


def answers_of(logits, targets):
    """Answers to logits, (n, classes), and true classes."""
    logits, targets = torch.as_tensor(logits, dtype=torch.float32), torch.as_tensor(targets)
    best = logits.argmax(1)
    return Answers(
        targets=targets.numpy(), predicted=best.numpy(), rank=_ranks(logits, targets, best).numpy(),
        confidence=logits.double().softmax(1).amax(1).numpy(),
        loss=torch.nn.functional.cross_entropy(logits, targets, reduction="none").numpy(), classes=logits.shape[1],
    )  # fmt: skip


@pytest.fixture(scope="module")
def drawn():
    """Logits of 300 rows over 7 classes and their true classes; the last class has no row."""
    random = np.random.default_rng(5)
    return random.normal(size=(300, 7)) * 2, random.integers(6, size=300)


def test_accuracies_are_those_of_a_slow_loop(drawn):
    logits, targets = drawn
    answers = answers_of(*drawn)
    orders = np.argsort(-logits, axis=1)
    assert accuracy(answers) == np.mean([order[0] == target for order, target in zip(orders, targets, strict=True)])
    assert top5(answers) == np.mean([target in order[:5] for order, target in zip(orders, targets, strict=True)])
    each = [np.mean(orders[targets == label, 0] == label) for label in range(6)]
    assert mean_per_class(answers) == pytest.approx(np.mean(each))


def test_of_five_classes_or_fewer_every_answer_is_among_the_first_five():
    assert top5(answers_of(np.eye(5), [4, 3, 2, 1, 0])) == 1.0


def test_a_tie_with_the_true_class_is_one_class_more_likely():
    answers = answers_of([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]], [0, 1])
    assert answers.rank.tolist() == [0, 1]
    assert answers.right.tolist() == (answers.predicted == answers.targets).tolist() == [True, False]


def test_the_calibration_error_is_that_of_fifteen_bins(drawn):
    answers = answers_of(*drawn)
    error = 0.0
    for number in range(15):
        inside = [row for row, value in enumerate(answers.confidence) if int(value * 15) == number]
        if inside:
            gap = np.mean(answers.right[inside]) - np.mean(answers.confidence[inside])
            error += len(inside) / len(answers) * abs(gap)
    assert calibration_error(answers) == pytest.approx(error)
    sure = answers_of([[100.0, 0.0], [100.0, 0.0]], [0, 1])
    assert calibration_error(sure) == pytest.approx(0.5)


def test_the_interval_is_that_of_resampled_rows(drawn):
    answers = answers_of(*drawn)
    low, high = accuracy_interval(answers, seed=3)
    random = np.random.default_rng(0)
    resampled = [random.choice(answers.right, len(answers)).mean() for _ in range(4000)]
    assert [low, high] == pytest.approx(np.quantile(resampled, [0.025, 0.975]), abs=0.006)
    assert low < accuracy(answers) < high
    assert accuracy_interval(answers, seed=3) == (low, high)
    assert accuracy_interval(answers_of(np.eye(3), [0, 1, 2]), seed=3) == (1.0, 1.0)


def test_the_truth_scores_1_and_shuffled_labels_score_chance():
    targets = np.arange(700) % 7
    logits = 20.0 * np.eye(7)[targets]
    assert dict(measures(answers_of(logits, targets), seed=0)) == pytest.approx(
        {"accuracy": 1, "top5": 1, "mean_per_class": 1, "cross_entropy": 0, "ece": 0, "accuracy_low": 1,
         "accuracy_high": 1}, abs=1e-6,
    )  # fmt: skip
    shuffled = dict(measures(answers_of(logits, np.random.default_rng(1).permutation(targets)), seed=0))
    assert shuffled["accuracy_low"] < 1 / 7 < shuffled["accuracy_high"]
    assert shuffled["ece"] == pytest.approx(1 - shuffled["accuracy"])


def test_the_confusion_matrix_counts_pairs(drawn, tmp_path):
    answers = answers_of(*drawn)
    matrix = np.zeros((7, 7), int)
    for target, predicted in zip(answers.targets, answers.predicted, strict=True):
        matrix[target, predicted] += 1
    assert confusion(answers).matrix().tolist() == matrix.tolist()
    write_confusion(tmp_path / "confusion.csv", confusion(answers), NAMES)
    table = pd.read_csv(tmp_path / "confusion.csv")
    assert table.images.sum() == 300
    pivot = table.pivot_table(index="class", columns="predicted", values="images", fill_value=0)
    assert pivot.to_numpy().tolist() == matrix[:6].tolist()


def test_a_row_a_class_says_what_it_is_mistaken_for(tmp_path):
    answers = answers_of(np.eye(4)[[0, 1, 1, 2, 1, 0]], [0, 0, 0, 0, 1, 3])
    write_per_class(tmp_path / "per_class.csv", answers, confusion(answers), ["ant", "bee", "cow", "dog"])
    table = pd.read_csv(tmp_path / "per_class.csv", keep_default_na=False)
    assert table["class"].tolist() == ["ant", "bee", "cow", "dog"]
    assert table.images.tolist() == [4, 1, 0, 1]
    assert table.accuracy.tolist() == ["0.25", "1", "", "0"]
    assert table.top5.tolist() == ["1", "1", "", "1"]
    assert table.answered.tolist() == [2, 3, 1, 0]
    assert table.mistaken_for.tolist() == ["bee", "", "", "ant"]
    assert table.mistaken_for_images.tolist() == [2, 0, 0, 1]


def test_the_worst_mistakes_are_wrong_answers_of_the_highest_loss():
    answers = answers_of([[9, 0], [1, 0], [5, 0], [0.1, 0], [3, 0]], [1, 1, 0, 0, 1])
    assert worst_mistakes(answers, 2).tolist() == [0, 4]
    assert worst_mistakes(answers, 9).tolist() == [0, 4, 1]
    assert worst_mistakes(answers, 0).tolist() == []
