"""Codebook: embeddings of ids, and the nearest code by direction."""

import numpy as np
import pytest
import torch

import published
import tiny
from tokens.codebook import embed, nearest_code


def nearest_slowly(embeddings, codebook):
    """Index of the largest cosine, one place at a time."""
    samples, _, height, width = embeddings.shape
    ids = np.zeros((samples, height, width), np.int64)
    for sample, row, column in np.ndindex(samples, height, width):
        vector = embeddings[sample, :, row, column]
        cosines = [vector @ code / np.linalg.norm(vector) / np.linalg.norm(code) for code in codebook]
        ids[sample, row, column] = int(np.argmax(cosines))
    return ids


@pytest.fixture
def codebook():
    """23 codes of 5 channels and of very different lengths."""
    random = np.random.default_rng(0)
    lengths = random.uniform(0.1, 10, (23, 1))
    return torch.from_numpy(random.standard_normal((23, 5)) * lengths)


def test_an_embedding_is_its_row_of_the_codebook(codebook):
    ids = tiny.random_ids(2, 23, (3, 4))
    embeddings = embed(ids, codebook)
    assert embeddings.shape == (2, 5, 3, 4)
    for sample, row, column in np.ndindex(2, 3, 4):
        assert embeddings[sample, :, row, column].tolist() == codebook[ids[sample, row, column]].tolist()


def test_the_nearest_code_is_the_one_of_the_largest_cosine(codebook):
    embeddings = torch.from_numpy(np.random.default_rng(1).standard_normal((3, 5, 2, 4)))
    assert nearest_code(embeddings, codebook).tolist() == nearest_slowly(embeddings.numpy(), codebook.numpy()).tolist()


def test_the_length_of_an_embedding_does_not_matter(codebook):
    embeddings = torch.from_numpy(np.random.default_rng(1).standard_normal((3, 5, 2, 4)))
    lengths = torch.rand(3, 1, 2, 4, dtype=torch.float64) * 100 + 1e-3
    assert torch.equal(nearest_code(embeddings * lengths, codebook), nearest_code(embeddings, codebook))


def test_the_nearest_code_of_an_embedded_id_is_the_id(codebook):
    ids = tiny.random_ids(4, 23, (3, 2))
    assert torch.equal(nearest_code(embed(ids, codebook), codebook), ids)


@pytest.mark.parametrize("block", [1, 23, 24, 100, 10**6])
def test_the_memory_bound_does_not_change_the_codes(codebook, block):
    embeddings = torch.from_numpy(np.random.default_rng(2).standard_normal((3, 5, 2, 4)))
    expected = nearest_slowly(embeddings.numpy(), codebook.numpy())
    assert nearest_code(embeddings, codebook, block=block).tolist() == expected.tolist()


def test_parity_of_the_nearest_code():
    recorded = published.recording("codebook")
    codes = nearest_code(recorded["embedding"], recorded["codebook"])
    assert torch.equal(codes, recorded["codes"].long())
