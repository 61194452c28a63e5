"""Codebook: embeddings of ids, and the nearest code by direction."""

import numpy as np
import pytest
import torch

import published
import tiny
from seitpp.tokens.codebook import embed, nearest_code


def nearest_slowly(embeddings, codebook, lookup):
    """Index of the largest cosine or the least distance, one place at a time."""
    samples, _, height, width = embeddings.shape
    ids = np.zeros((samples, height, width), np.int64)
    for sample, row, column in np.ndindex(samples, height, width):
        vector = embeddings[sample, :, row, column]
        if lookup == "cosine":
            scores = [vector @ code / np.linalg.norm(vector) / np.linalg.norm(code) for code in codebook]
        else:
            scores = [-np.linalg.norm(vector - code) for code in codebook]
        ids[sample, row, column] = int(np.argmax(scores))
    return ids


LOOKUPS = pytest.mark.parametrize("lookup", ["cosine", "euclidean"])


@pytest.fixture
def codebook():
    """23 codes of 5 channels and of very different lengths."""
    random = np.random.default_rng(0)
    lengths = random.uniform(0.1, 10, (23, 1))
    return torch.from_numpy(random.standard_normal((23, 5)) * lengths)


@pytest.fixture
def embeddings():
    return torch.from_numpy(np.random.default_rng(1).standard_normal((3, 5, 2, 4)) * 3)


def test_an_embedding_is_its_row_of_the_codebook(codebook):
    ids = tiny.random_ids(2, 23, (3, 4))
    embeddings = embed(ids, codebook)
    assert embeddings.shape == (2, 5, 3, 4)
    for sample, row, column in np.ndindex(2, 3, 4):
        assert embeddings[sample, :, row, column].tolist() == codebook[ids[sample, row, column]].tolist()


@LOOKUPS
def test_the_nearest_code_is_that_of_the_slow_search(codebook, embeddings, lookup):
    expected = nearest_slowly(embeddings.numpy(), codebook.numpy(), lookup)
    assert nearest_code(embeddings, codebook, lookup).tolist() == expected.tolist()


def test_the_two_ways_to_look_up_differ(codebook, embeddings):
    by_angle, by_distance = (nearest_code(embeddings, codebook, lookup) for lookup in ("cosine", "euclidean"))
    assert not torch.equal(by_angle, by_distance)


def test_the_length_of_an_embedding_does_not_matter_to_its_angle(codebook, embeddings):
    lengths = torch.rand(3, 1, 2, 4, dtype=torch.float64) * 100 + 1e-3
    assert torch.equal(nearest_code(embeddings * lengths, codebook), nearest_code(embeddings, codebook))


@LOOKUPS
def test_the_nearest_code_of_an_embedded_id_is_the_id(codebook, lookup):
    ids = tiny.random_ids(4, 23, (3, 2))
    assert torch.equal(nearest_code(embed(ids, codebook), codebook, lookup), ids)


@LOOKUPS
@pytest.mark.parametrize("block", [1, 23, 24, 100, 10**6])
def test_the_memory_bound_does_not_change_the_codes(codebook, embeddings, lookup, block):
    expected = nearest_slowly(embeddings.numpy(), codebook.numpy(), lookup)
    assert nearest_code(embeddings, codebook, lookup, block=block).tolist() == expected.tolist()


def test_parity_of_the_nearest_code():
    recorded = published.recording("codebook")
    codes = nearest_code(recorded["embedding"], recorded["codebook"], "cosine")
    assert torch.equal(codes, recorded["codes"].long())
