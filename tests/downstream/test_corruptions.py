"""Corrupted images: ImageNet-C's corruptions as an image source, the same whoever reads them and when."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from imagecorruptions import get_corruption_names

import tiny
from seitpp.downstream import corruptions
from seitpp.downstream.corruptions import CorruptedImages, check_corruptions, corrupt
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.images import open_image_folder
from seitpp.tokenizers.sources.selected import SelectedImages

SIZE = (32, 48)


@dataclass(frozen=True)
class Arrays:
    """An ImageSource of images in memory."""

    pixels: np.ndarray
    classes: tuple = ("one",)

    @property
    def keys(self):
        return [f"{index}.png" for index in range(len(self.pixels))]

    @property
    def labels(self):
        return np.zeros(len(self.pixels), np.int32)

    def __len__(self):
        return len(self.pixels)

    def read(self, index, size, resize="crop"):
        return self.pixels[index]

    def where(self, index):
        return f"image {index}"

    def sizes(self, rows):
        return np.zeros(len(rows), np.int64)


@pytest.fixture(scope="module")
def smooth():
    """Three smooth images, a bit reddish, (3, 3, 32, 48) uint8."""
    ramp = np.linspace(51, 204, 48) * np.ones((3, 32, 1)) * np.array([1.0, 0.9, 0.8]).reshape(3, 1, 1)
    return Arrays(np.stack([ramp, ramp[..., ::-1], ramp * 0.5]).round().astype(np.uint8))


def all_of(images, name, severity=3, seed=0):
    corrupted = CorruptedImages(images, name, severity, seed)
    return np.stack([corrupted.read(index, SIZE) for index in range(len(images))])


@pytest.mark.parametrize("name", get_corruption_names("all"))
def test_every_corruption_changes_the_image_and_is_the_same_again(smooth, name):
    before = smooth.pixels.copy()
    once = all_of(smooth, name)
    np.random.rand(5)  # what others draw must not matter
    np.testing.assert_array_equal(all_of(smooth, name), once)
    assert once.shape == smooth.pixels.shape
    assert once.dtype == np.uint8
    assert not np.array_equal(once, smooth.pixels)
    np.testing.assert_array_equal(smooth.pixels, before)


@pytest.mark.parametrize("name", ["gaussian_noise", "impulse_noise", "glass_blur"])
def test_another_seed_is_another_noise_and_each_image_has_its_own(smooth, name):
    assert not np.array_equal(all_of(smooth, name, seed=1), all_of(smooth, name, seed=0))
    first, second, third = all_of(Arrays(smooth.pixels[[0, 0, 0]]), name)
    assert not np.array_equal(first, second)
    assert not np.array_equal(second, third)


def test_the_noise_is_that_of_a_loop_over_numpys_generator(smooth):
    """Known answer: gaussian noise of severity 3 is N(0, 0.18) from numpy's legacy generator, cut and rounded down."""
    noise = np.random.RandomState(7).normal(size=(32, 48, 3), scale=0.18)
    expected = (np.clip(smooth.pixels[0].transpose(1, 2, 0) / 255.0 + noise, 0, 1) * 255).astype(np.uint8)
    np.testing.assert_array_equal(corrupt(smooth.pixels[0], "gaussian_noise", 3, seed=7).transpose(1, 2, 0), expected)


def test_noise_grows_with_the_severity(smooth):
    errors = [
        float((all_of(smooth, "gaussian_noise", level) / 255.0 - smooth.pixels / 255.0).std()) for level in range(1, 6)
    ]
    assert errors == sorted(errors)
    assert errors[0] == pytest.approx(0.08, abs=0.01)  # ImageNet-C's standard deviation at severity 1
    assert errors[-1] > 2.5 * errors[0]


def test_corrupting_leaves_numpys_own_randomness_alone(smooth):
    np.random.seed(5)
    expected = np.random.rand()
    np.random.seed(5)
    all_of(smooth, "gaussian_noise")
    assert np.random.rand() == expected


@pytest.mark.parametrize("name", ["shot_noise", "elastic_transform"])
def test_many_threads_read_what_one_reads(smooth, name):
    images = CorruptedImages(Arrays(np.tile(smooth.pixels, (10, 1, 1, 1))), name, 2, seed=0)
    read = partial(images.read, size=SIZE)
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(read, range(30)))
    for index, pixels in enumerate(together):
        np.testing.assert_array_equal(pixels, read(index))


def test_it_is_a_source_with_the_names_labels_and_classes_of_the_other(tmp_path):
    folder = open_image_folder(tiny.make_images(tmp_path / "photos", {"ant": 2, "bee": 3}, size=SIZE))
    some = SelectedImages(folder, np.array([4, 1, 2]))
    images = CorruptedImages(some, "contrast", 1, seed=0)
    assert len(images) == 3
    assert images.keys == ["bee/002.png", "ant/001.png", "bee/000.png"]
    assert images.labels.tolist() == [1, 0, 1]
    assert images.classes == ["ant", "bee"]
    assert images.where(0) == str(tmp_path / "photos" / "bee" / "002.png")
    expected = corrupt(folder.read(1, SIZE), "contrast", 1, seed=0)  # contrast draws nothing
    np.testing.assert_array_equal(images.read(1, SIZE), expected)


def test_a_corruption_that_fails_is_no_image_that_can_not_be_decoded(smooth, monkeypatch):
    def fails(*_, **__):
        raise ValueError("no")

    monkeypatch.setattr(corruptions, "corrupt", fails)
    with pytest.raises(UserError, match=r"fog fails on image 1 \(no\)"):
        CorruptedImages(smooth, "fog", 1, seed=0).read(1, SIZE)


@pytest.mark.parametrize(
    ("names", "size", "said"),
    [
        (("fog", "gausian_noise"), SIZE, r"'gausian_noise'.*gaussian_noise"),
        (("fog",), (31, 48), r"32.*31 x 48.*--corruptions"),
    ],
)
def test_corruptions_that_can_not_be_made_are_refused(names, size, said):
    with pytest.raises(UserError, match=said) as refused:
        check_corruptions(names, size)
    tiny.one_line(str(refused.value))


def test_without_corruptions_any_size_will_do():
    check_corruptions((), (8, 8))
