"""The gradient through a tokenizer: forward it is the classifier itself, backward a weighted mean of codes near by."""

import pytest
import torch
from torch import nn

from seitpp.downstream import straight_through
from seitpp.downstream.straight_through import AttackedPath, encoder_of, mixed_embeddings, nearest_codes, spacing
from seitpp.finetune.classifier import Classifier
from seitpp.mtm.encoder import EncoderConfig
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.networks.reduced import ReducedTokenizer
from seitpp.tokenizers.networks.vit_vqgan import TransformerConfig, ViTVQGAN, ViTVQGANConfig
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.views import centre


def make_tokenizer(kind, folder):
    """A small tokenizer of 16 x 24 pixels and 4 x 6 tokens, with random weights."""
    torch.manual_seed(4)
    if kind == "cosine":
        shape = TransformerConfig(width=16, depth=1, heads=1, mlp=8)
        config = ViTVQGANConfig(
            image_size=(16, 24), patch_size=4, encoder=shape, decoder=None, codebook_size=37, codebook_dim=5
        )  # fmt: skip
        return ViTVQGAN(config).eval().requires_grad_(False)
    base = load_tokenizer(folder)
    if kind == "euclidean":
        return base
    mapping = torch.randint(9, (37,))
    codes = torch.arange(9) * 4
    mapping[codes] = torch.arange(9)
    return ReducedTokenizer(base, codes, mapping)


def make_classifier(stem, codes, view=(4, 6)):
    torch.manual_seed(5)
    config = EncoderConfig(width=24, depth=2, heads=3, patch_size=2, embedding_std=0.5)
    classifier = Classifier(config, view=view, codebook_size=codes, embedding_dim=7, classes=3, stem=stem)
    if stem == "adapter":
        classifier.encoder.stem.codebook.normal_()
    nn.init.normal_(classifier.head.weight)
    return classifier.eval()


def make_path(tokenizer, stem="patches", *, view=(4, 6), temperature=1.0, neighbours=6):
    classifier = make_classifier(stem, tokenizer.codebook_size, view)
    return AttackedPath(tokenizer, classifier, temperature=temperature, neighbours=neighbours)


def some_images(count=3):
    return torch.rand(count, 3, 16, 24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["euclidean", "cosine", "reduced"])
@pytest.mark.parametrize(("stem", "view"), [("patches", (4, 6)), ("patches", (2, 4)), ("adapter", (4, 6))])
def test_logits_with_a_gradient_are_those_of_the_plain_path(kind, stem, view, tokenizer_folder):
    tokenizer = make_tokenizer(kind, tokenizer_folder)
    path, images = make_path(tokenizer, stem, view=view), some_images()
    with torch.no_grad():
        plain = path.classifier(centre(tokenizer.encode(images), view))
    assert plain.std() > 0.01
    assert torch.allclose(path.logits(images), plain, atol=1e-5)


@pytest.mark.parametrize("kind", ["euclidean", "cosine", "reduced"])
@pytest.mark.parametrize("stem", ["patches", "adapter"])
def test_the_gradient_reaches_the_pixels_and_is_finite(kind, stem, tokenizer_folder):
    path = make_path(make_tokenizer(kind, tokenizer_folder), stem)
    gradient = path.gradient(torch.tensor([0, 1, 2]))(some_images())
    assert gradient.shape == (3, 3, 16, 24)
    assert gradient.isfinite().all()
    assert (gradient.abs().amax((1, 2, 3)) > 0).all()


def test_an_images_gradient_does_not_depend_on_the_others_of_its_batch(tokenizer_folder):
    path, images = make_path(make_tokenizer("euclidean", tokenizer_folder)), some_images()
    together = path.gradient(torch.tensor([0, 1, 2]))(images)
    alone = path.gradient(torch.tensor([1]))(images[1:2])
    assert torch.allclose(together[1:2], alone, rtol=1e-3, atol=1e-6)


def random_tables(count=37):
    generator = torch.Generator().manual_seed(2)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return draw(11, 5), draw(count, 5), torch.randint(9, (count,), generator=generator), draw(9, 7), draw(11, 7)


@pytest.mark.parametrize("count", [6, 37])
def test_the_gradient_is_that_of_the_weighted_mean_by_finite_differences(count):
    latents, codes, renamed, table, weights = random_tables()

    def soft(latents):
        return (weights * mixed_embeddings(latents, codes, renamed, table, width=1.3, count=count, soft=True)).sum()

    expected, step = torch.zeros_like(latents), 1e-6
    for row in range(11):
        for channel in range(5):
            nudge = torch.zeros_like(latents)
            nudge[row, channel] = step
            expected[row, channel] = (soft(latents + nudge) - soft(latents - nudge)) / (2 * step)
    latents.requires_grad_()
    hard = mixed_embeddings(latents, codes, renamed, table, width=1.3, count=count)
    (found,) = torch.autograd.grad((weights * hard).sum(), latents)
    assert expected.abs().max() > 0.1
    assert torch.allclose(found, expected, atol=1e-7)


def test_from_pixels_to_logits_the_soft_path_has_the_slope_of_finite_differences(tokenizer_folder):
    path = make_path(make_tokenizer("euclidean", tokenizer_folder), neighbours=37)
    images = some_images(1).double()
    for module in (path.tokenizer, path.classifier):
        module.double()
    path.codes, path.table = path.codes.double(), path.table.double()
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def soft(images):
        return path.logits(images, soft=True)[0, 1]

    slope = float(soft(images + 1e-6 * direction) - soft(images - 1e-6 * direction)) / 2e-6
    moved = images.clone().requires_grad_()
    (found,) = torch.autograd.grad(soft(moved), moved)
    assert abs(slope) > 1e-3
    assert float((found * direction).sum()) == pytest.approx(slope, rel=1e-5)


def test_with_all_codes_the_weights_are_a_softmax_over_the_codebook():
    latents, codes, renamed, table, _ = random_tables()
    found = mixed_embeddings(latents, codes, renamed, table, width=0.7, count=37, soft=True)
    for row in range(11):
        distances = ((latents[row] - codes) ** 2).sum(1)
        chances = torch.exp(-distances / 0.7) / torch.exp(-distances / 0.7).sum()
        assert torch.allclose(found[row], sum(chances[code] * table[renamed[code]] for code in range(37)))


def test_codes_near_by_are_the_nearest_however_small_the_blocks(monkeypatch):
    latents, codes, *_ = random_tables()
    expected = torch.cdist(latents, codes).argsort(1)[:, :4]
    assert torch.equal(nearest_codes(latents, codes, 4), expected)
    monkeypatch.setattr(straight_through, "BLOCK", 50)  # a row at a time
    assert torch.equal(nearest_codes(latents, codes, 4), expected)


def test_spacing_is_the_median_over_codes_that_lie_apart():
    codes = torch.tensor([[0.0], [1.0], [3.0], [7.0], [7.0], [12.0]])  # nearest others: 1, 1, 2, -, -, 5
    assert spacing(codes) == pytest.approx(1.0)  # torch's median of 1, 1, 4, 25 is the lower of the middle ones
    assert spacing(torch.zeros(3, 2)) == 1.0


def test_a_reduced_tokenizer_of_a_reduced_one_is_the_first_with_all_renamings(tokenizer_folder):
    once = make_tokenizer("reduced", tokenizer_folder)
    twice = ReducedTokenizer(once, [0, 4, 8], torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 2]))
    latents, codes, renamed = encoder_of(twice)
    images = some_images(5)
    near = torch.cdist(latents(images).permute(0, 2, 3, 1).reshape(-1, 5), codes).argmin(1)
    assert torch.equal(renamed[near], twice.encode(images).flatten())


class Opaque(nn.Module):
    """A tokenizer without `latents`."""

    name, image_size, grid, codebook_size, lookup = "opaque", (16, 24), (4, 6), 37, "euclidean"
    codebook = torch.zeros(37, 5)

    def encode(self, images):
        return torch.zeros(len(images), 4, 6, dtype=torch.int64)


def test_a_tokenizer_that_no_gradient_can_pass_is_refused():
    with pytest.raises(UserError, match=r"'opaque' has no method latents\(images\)"):
        make_path(Opaque())
    otherwise = Opaque()
    otherwise.codebook = torch.eye(37, 5)
    otherwise.latents = lambda images: torch.ones(len(images), 5, 4, 6) * torch.tensor([0, 0, 3, 0, 0])[:, None, None]
    with pytest.raises(UserError, match=r"'opaque' does not take the nearest code .*\(0 % of a trial\)"):
        make_path(otherwise)


def test_a_classifier_that_holds_no_codebook_is_refused(tokenizer_folder):
    tokenizer = make_tokenizer("euclidean", tokenizer_folder)
    with pytest.raises(UserError, match="holds no codebook"):
        AttackedPath(tokenizer, make_classifier_without_codebook(), temperature=1.0, neighbours=3)


def make_classifier_without_codebook():
    config = EncoderConfig(width=24, depth=1, heads=3, patch_size=2)
    return Classifier(config, view=(4, 6), codebook_size=None, embedding_dim=5, classes=2, stem="adapter")
