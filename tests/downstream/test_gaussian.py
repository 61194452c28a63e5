"""Gaussian noise and blur: of the strength that is asked for, and none of strength 0."""

import numpy as np
import pytest

import tiny
from seitpp.downstream.gaussian import BlurredImages, NoisyImages
from seitpp.tokenizers.sources.images import open_image_folder

SIZE = (32, 48)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return open_image_folder(
        tiny.make_images(tmp_path_factory.mktemp("photos") / "some", {"ant": 2, "bee": 1}, size=SIZE)
    )


class Grey:
    """An ImageSource of one grey image with a bright pixel in its middle."""

    def read(self, index, size, resize="crop"):
        pixels = np.full((3, 33, 33), 0, np.uint8)
        pixels[:, 16, 16] = 250
        return pixels


@pytest.mark.parametrize(
    "make", [lambda images: NoisyImages(images, 0.0, 7), lambda images: BlurredImages(images, 0.0)]
)
def test_strength_0_gives_the_clean_images(photos, make):
    for index in range(3):
        np.testing.assert_array_equal(make(photos).read(index, SIZE), photos.read(index, SIZE))


def test_noise_has_the_deviation_asked_for_and_is_the_same_again(photos):
    noisy = NoisyImages(photos, 0.05, 7)
    errors = np.stack([noisy.read(index, SIZE) / 255 - photos.read(index, SIZE) / 255 for index in range(3)])
    inside = np.stack([photos.read(index, SIZE) for index in range(3)])
    errors = errors[(inside > 50) & (inside < 205)]  # what is cut at black and white aside
    assert len(errors) > 5000
    assert errors.std() == pytest.approx(0.05, rel=0.05)
    assert abs(errors.mean()) < 0.003
    np.testing.assert_array_equal(noisy.read(1, SIZE), NoisyImages(photos, 0.05, 7).read(1, SIZE))
    assert not np.array_equal(noisy.read(1, SIZE), NoisyImages(photos, 0.05, 8).read(1, SIZE))


def test_blur_spreads_a_point_as_a_gaussian_does():
    spread = BlurredImages(Grey(), 2.0).read(0, (33, 33)).astype(float)
    distance = np.arange(33) - 16
    bell = np.exp(-(distance[:, None] ** 2 + distance[None] ** 2) / 8)
    expected = 250 * bell / bell.sum()
    for channel in spread:
        np.testing.assert_allclose(channel, expected, atol=0.6)
    assert spread.max() == round(250 / (2 * np.pi * 4))
