"""Measures of segmentation: known numbers on label maps written by hand, and windows put together to whole images."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torchmetrics.classification import MulticlassJaccardIndex

import tiny_segmentation
from seitpp.downstream.segmentation.baseline import majority_logits, token_majority
from seitpp.downstream.segmentation.evaluation import confusion_over
from seitpp.downstream.segmentation.scores import Confusion, count_pixels, write_per_class
from seitpp.downstream.segmentation.stitching import Stitch, label_maps
from seitpp.downstream.segmentation.windows import IGNORE, open_segmentation
from seitpp.runtime.errors import UserError

ALONE = SimpleNamespace(process_index=0, num_processes=1, device=torch.device("cpu"))
LAYOUTS = [(16, (16, 24)), (16, (8, 12)), (16, (5, 7)), (None, (16, 24)), (None, (11, 13))]
"""(short side, stride)."""


def open_store(folder, short_side, stride, truths=False):
    made, masks = tiny_segmentation.make_segmentation_store(
        folder, short_side=short_side, stride=stride, seed=3, truths=truths
    )  # fmt: skip
    return open_segmentation(made), masks


def truth_of(rows, shift=0):
    """A segmenter that is fed the label maps of windows, moved to the right by so many pixels."""

    def logits_at(which):
        masks = rows.masks(which).roll(shift, dims=2).long()
        shown = torch.where(masks == IGNORE, 0, masks)
        return rearrange(F.one_hot(shown, len(rows.classes)).float(), "b h w k -> b k h w")

    return logits_at


@pytest.mark.parametrize(("short_side", "stride"), LAYOUTS)
def test_a_segmenter_that_is_fed_the_truth_is_right_everywhere_at_the_images_own_size(tmp_path, short_side, stride):
    rows, masks = open_store(tmp_path / "store", short_side, stride)
    confusion = confusion_over(truth_of(rows), rows, batch_size=3, accelerator=ALONE)
    assert confusion.measures() == {"miou": 1.0, "pixel_accuracy": 1.0, "mean_class_accuracy": 1.0}
    assert confusion.counts.sum() == sum(int((rows.truth(image) != IGNORE).sum()) for image in range(rows.images))
    assert [rows.truth(image).shape for image in range(rows.images)] == [mask.shape for mask in masks]


@pytest.mark.parametrize(("short_side", "stride"), LAYOUTS)
def test_a_truth_that_is_moved_by_a_pixel_is_not(tmp_path, short_side, stride):
    rows, _ = open_store(tmp_path / "store", short_side, stride)
    assert confusion_over(truth_of(rows, 1), rows, batch_size=3, accelerator=ALONE).measures()["miou"] < 0.99


@pytest.mark.parametrize(("short_side", "stride"), LAYOUTS)
def test_truth_that_a_store_keeps_is_compared_as_it_came(tmp_path, short_side, stride):
    """Exact where images keep their size; else as near as a resized label map can be to the one at the own size."""
    rows, masks = open_store(tmp_path / "store", short_side, stride, truths=True)
    assert rows.keeps_truth
    assert all(np.array_equal(rows.truth(image), mask) for image, mask in enumerate(masks))
    right, moved = (
        confusion_over(truth_of(rows, shift), rows, batch_size=3, accelerator=ALONE).measures()["pixel_accuracy"]
        for shift in (0, 1)
    )
    assert right == 1.0 if short_side is None else 0.93 < right < 1.0
    assert moved < right - 0.02


def test_windows_of_images_that_keep_their_size_are_put_together_to_their_label_maps(tmp_path):
    rows, masks = open_store(tmp_path / "store", None, (11, 13))
    for image, mask in enumerate(masks):
        assert np.array_equal(rows.truth(image), mask)
    for image, labels in label_maps(truth_of(rows), rows, range(rows.images), batch_size=4, device="cpu"):
        known = masks[image] != IGNORE
        assert np.array_equal(labels[known], masks[image][known])


def test_the_batch_size_changes_nothing_and_each_image_comes_once(tmp_path):
    rows, _ = open_store(tmp_path / "store", 16, (8, 12))
    one, other = (dict(label_maps(truth_of(rows), rows, [3, 0, 4], batch_size=size, device="cpu")) for size in (1, 7))
    assert list(one) == list(other) == [3, 0, 4]
    assert all(np.array_equal(one[image], other[image]) for image in one)


def test_logits_are_averaged_where_windows_overlap():
    stitch = Stitch(2, (2, 6), (2, 4), "cpu")
    first, second = torch.zeros(2, 2, 4), torch.zeros(2, 2, 4)
    first[0], first[1] = 3.0, 1.0
    second[0], second[1] = 0.0, 2.5  # where both are, 3 + 0 is less than 1 + 2.5
    stitch.add(first, 0, 0)
    stitch.add(second, 0, 2)
    assert stitch.labels((2, 6), smooth=False).tolist() == [[0, 0, 1, 1, 1, 1]] * 2


@pytest.mark.parametrize("original", [(5, 7), (9, 4), (100, 31), (3, 70)])
def test_mean_logits_are_brought_to_the_own_size_as_torch_does_it_at_once(original):
    torch.manual_seed(0)
    logits = torch.randn(4, 5, 7)
    stitch = Stitch(4, (5, 7), (5, 7), "cpu")
    stitch.add(logits, 0, 0)
    stitch.add(logits, 0, 0)  # the mean of two alike
    expected = F.interpolate(logits[None], size=original, mode="bilinear", align_corners=False)[0].argmax(0)
    assert np.array_equal(stitch.labels(original, smooth=True), expected.numpy())


def test_logits_of_a_coarser_grid_are_enlarged_to_the_windows_pixels_between_their_centres():
    stitch = Stitch(2, (1, 8), (1, 8), "cpu")
    stitch.add(torch.tensor([[[4.0, 0.0]], [[0.0, 1.0]]]), 0, 0)
    # From the centre of the first half (pixels 1.5) to that of the second (5.5), 4 - 4 t against t: equal at t = 0.8.
    assert stitch.labels((1, 8), smooth=False).tolist() == [[0, 0, 0, 0, 0, 1, 1, 1]]


TRUTH = np.array([[0, 0, 0, 1], [1, 1, 3, IGNORE]], np.uint8)
ANSWER = np.array([[0, 0, 1, 1], [1, 2, 0, 2]], np.uint8)


def test_measures_of_a_case_written_by_hand_with_absent_classes_and_ignored_pixels():
    counts = count_pixels(TRUTH, ANSWER, 5)
    assert counts.tolist() == [
        [2, 1, 0, 0, 0], [0, 2, 1, 0, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]
    ]  # fmt: skip
    confusion = Confusion(counts)
    # 0: 2 of 3 + 3 - 2; 1: 2 of 3 + 3 - 2; 2: answered only; 3: never answered; 4: neither, left out.
    assert confusion.iou[:4].tolist() == [2 / 4, 2 / 4, 0.0, 0.0]
    assert np.isnan(confusion.iou[4])
    assert confusion.measures() == {
        "miou": pytest.approx(1 / 4), "pixel_accuracy": pytest.approx(4 / 7),
        "mean_class_accuracy": pytest.approx((2 / 3 + 2 / 3 + 0) / 3),
    }  # fmt: skip


def test_the_mean_iou_is_that_of_torchmetrics_on_all_pixels_at_once():
    random = np.random.default_rng(0)
    metric, counts = MulticlassJaccardIndex(7, ignore_index=IGNORE), np.zeros((7, 7), np.int64)
    for _ in range(3):
        truth = random.integers(6, size=(8, 9)).astype(np.uint8)  # class 6 is nowhere
        truth[random.random((8, 9)) < 0.2] = IGNORE
        answer = np.where(random.random((8, 9)) < 0.5, np.minimum(truth, 5), random.integers(6, size=(8, 9)))
        counts += count_pixels(truth, answer.astype(np.uint8), 7)
        metric.update(torch.from_numpy(answer.astype(np.int64))[None], torch.from_numpy(truth.astype(np.int64))[None])
    assert Confusion(counts).measures()["miou"] == pytest.approx(float(metric.compute()), abs=1e-6)


def test_nothing_but_ignored_pixels_is_measured_as_nothing():
    assert set(Confusion(np.zeros((3, 3), np.int64)).measures().values()) == {0.0}


def test_maps_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 4\) pixels, the answer of \(4, 2\)"):
        count_pixels(TRUTH, ANSWER.T, 5)


def test_the_table_of_classes_leaves_blank_what_was_not_measured(tmp_path):
    write_per_class(tmp_path / "per_class.csv", Confusion(count_pixels(TRUTH, ANSWER, 5)), list("abcde"))
    table = pd.read_csv(tmp_path / "per_class.csv")
    assert table["class"].tolist() == list("abcde")
    assert table["pixels"].tolist() == [3, 3, 0, 1, 0]
    assert table["answered_pixels"].tolist() == [3, 3, 1, 0, 0]
    assert table["iou"].isna().tolist() == [False, False, False, False, True]
    assert table["accuracy"].isna().tolist() == [False, False, True, False, True]


def test_the_baseline_gives_each_token_the_commonest_class_of_its_id(tmp_path):
    rows, _ = open_store(tmp_path / "store", 16, (16, 24))
    majority = token_majority(rows, block=2)
    ids, masks = rows.store.ids(np.arange(len(rows))).numpy(), rows.masks(np.arange(len(rows))).numpy()
    pixels = ids.repeat(tiny_segmentation.TOKEN, axis=1).repeat(tiny_segmentation.TOKEN, axis=2)
    for code in np.unique(ids):
        found = masks[(pixels == code) & (masks != IGNORE)]
        assert majority[code] == np.bincount(found, minlength=3).argmax()
    assert majority[36] == np.bincount(masks[masks != IGNORE]).argmax()  # a code that never occurs
    logits = majority_logits(majority, rows)(np.array([1]))
    assert np.array_equal(logits.argmax(1)[0].numpy(), majority.numpy()[pixels[1]])


def test_a_store_without_label_maps_is_refused_in_one_line(tmp_path):
    import tiny

    tiny.make_store(tmp_path / "plain", tiny.random_ids(3, tiny.CODES, tiny.GRID))
    with pytest.raises(UserError, match=r"plain is no segmentation store \(no column mask\): make one with seitpp"):
        open_segmentation(tmp_path / "plain")
