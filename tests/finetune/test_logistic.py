"""Logistic regression on features: in memory by scikit-learn, in chunks on the device, the same minimum."""

import numpy as np
import pytest
import torch

from seitpp.finetune.labelled import LabelledRows
from seitpp.finetune.probing import logistic
from seitpp.finetune.probing.feature_set import FeatureSet
from seitpp.finetune.probing.logistic import accuracy, choose_strength, fit_logistic
from seitpp.runtime.devices import make_accelerator

CLASSES = ["ant", "bee", "cow", "dog"]


@pytest.fixture(name="how")
def fixture_how():
    return {"accelerator": make_accelerator("no")}


def blobs(rows, *, seed=0, spread=1.0):
    """Three classes of four around centres of unlike scale; every fifth row is not labelled, no row is a dog."""
    random = np.random.default_rng(seed)
    labels = np.arange(rows) % 3
    centres = np.random.default_rng(9).standard_normal((3, 5))
    features = (centres[labels] + spread * random.standard_normal((rows, 5))) * [1, 10, 0.1, 1, 1] + 3
    labels[::5] = -1
    return FeatureSet(features.astype(np.float32), LabelledRows(None, np.flatnonzero(labels >= 0), labels, CLASSES))


@pytest.mark.parametrize("strength", [0.01, 1.0])
def test_the_device_finds_the_minimum_that_scikit_learn_finds(strength, monkeypatch, how):
    monkeypatch.setattr(logistic, "CHUNK", 7)
    train, test = blobs(61), torch.from_numpy(blobs(200, seed=1).features)
    here, there = (fit_logistic(train, strength, solver=each, **how) for each in ("scikit-learn", "device"))
    assert (here(test) == there(test)).float().mean() > 0.99
    assert accuracy(here, blobs(200, seed=1), **how) == pytest.approx(
        accuracy(there, blobs(200, seed=1), **how), abs=0.01
    )


@pytest.mark.parametrize("solver", ["scikit-learn", "device"])
def test_features_that_tell_the_class_are_found_and_a_class_without_samples_does_no_harm(solver, how):
    answers = fit_logistic(blobs(61, spread=0.05), 1.0, solver=solver, **how)
    assert accuracy(answers, blobs(40, seed=1, spread=0.05), **how) == 1.0


def test_large_sets_go_to_the_device(monkeypatch, how):
    asked = []
    monkeypatch.setattr(logistic, "_fit_in_chunks", lambda *_: asked.append("device"))
    monkeypatch.setattr(logistic, "_fit_in_memory", lambda *_: asked.append("scikit-learn"))
    fit_logistic(blobs(61), 1.0, **how)
    monkeypatch.setattr(logistic, "SMALL", 10)
    fit_logistic(blobs(61), 1.0, **how)
    assert asked == ["scikit-learn", "device"]


def test_the_chosen_strength_is_the_best_on_the_held_out_part_and_without_one_the_middle(how):
    fit_part, held_out = blobs(31, spread=2.0), blobs(80, seed=2, spread=2.0)
    strengths = (1e-5, 0.01, 1.0)
    best, tried = choose_strength(fit_part, held_out, strengths, **how)
    assert list(tried) == list(strengths)
    assert tried[best] == max(tried.values())
    assert tried == {each: accuracy(fit_logistic(fit_part, each, **how), held_out, **how) for each in strengths}
    nothing = held_out.part(held_out.labelled.part(np.zeros(0, np.int64)))
    assert choose_strength(fit_part, nothing, strengths, **how) == (0.01, {})
