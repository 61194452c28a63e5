"""Lookup-free codes: all vectors of -1 and 1, looked up by their signs, of which a store keeps no codebook."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.reduce_codebook import ReduceCodebookConfig
from seitpp.tokenizers.reduce_codebook import main as reduce_codebook
from seitpp.tokenizers.store_export import ExportConfig
from seitpp.tokenizers.store_export import main as export_store
from seitpp.tokenizers.store_import import ImportConfig
from seitpp.tokenizers.store_import import main as import_store
from seitpp.tokens.code_store import CodeStoreConfig
from seitpp.tokens.code_store import main as code_store
from seitpp.tokens.codebook import embed, nearest_code, sign_codes
from seitpp.tokens.format.codebook_tensor import tensors_of
from seitpp.tokens.store import TokenStore, open_store
from seitpp.tokens.synonyms import nearest_codes

BITS, GRID = 17, (2, 3)


def make_store(folder, bits=BITS, rows=9):
    ids = tiny.random_ids(rows, 2**bits, GRID)
    tiny.make_store(folder, ids, codes=2**bits, codebook=sign_codes(bits), lookup="signs")
    return ids


def test_the_nearest_code_has_the_signs_of_the_embedding():
    embeddings = torch.randn(3, 5, *GRID, generator=torch.Generator().manual_seed(0))
    ids = nearest_code(embeddings, torch.empty(0), "signs")
    assert torch.equal(ids, nearest_code(embeddings, sign_codes(5), "euclidean"))
    assert torch.equal(embed(ids, sign_codes(5)), embeddings.sign())
    assert nearest_code(torch.zeros(1, 5, 1, 1), torch.empty(0), "signs").tolist() == [[[0]]]  # as published: 0 is no 1


def test_a_store_of_signs_keeps_the_number_of_bits_and_gives_the_codes(tmp_path):
    ids = make_store(tmp_path)
    assert {name: tensor.tolist() for name, tensor in load_file(tmp_path / "codebook.safetensors").items()} == {
        "bits": [BITS]
    }
    store = open_store(tmp_path)
    store.verify()
    assert store.size.codebook == (tmp_path / "codebook.safetensors").stat().st_size < 100
    assert torch.equal(store.codebook, sign_codes(BITS))
    assert torch.equal(store.ids(range(9)), ids)
    assert store.row_bytes == 6 + 9  # 8 of 17 bits in bytes, 9 planes of 6 bits


def test_a_store_of_the_most_codes_is_verified_without_making_them(tmp_path):
    ids = torch.tensor([[[0, 2**24 - 1, 2**23], [1, 2**16, 77]]])
    shards = tiny.make_store(tmp_path / "large", ids, codes=2**24, codebook=torch.zeros(2**24, 1), labels=[0])
    save_file({"bits": torch.tensor([24], dtype=torch.uint8)}, shards / "codebook.safetensors")
    manifest = json.loads((shards / "store.json").read_text())
    manifest["codebook"] = described(shards / "codebook.safetensors")
    (shards / "store.json").write_text(json.dumps({**manifest, "lookup": "signs"}))
    store = open_store(shards)
    store.verify()
    assert store.row_bytes == 6 + 16
    assert store.ids([0]).tolist() == ids.tolist()


def described(file):
    import hashlib

    content = file.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize(
    ("tensors", "line"),
    [
        (
            {"bits": torch.tensor([16], dtype=torch.uint8)},
            r"holds uint8 \(1,\), expected uint8 \(1,\), the number of bits",
        ),
        ({"bits": torch.tensor([255], dtype=torch.uint8)}, "expected uint8"),
        ({"bits": torch.tensor([17])}, "holds int64"),
        ({"bits": torch.tensor([], dtype=torch.uint8)}, r"holds uint8 \(0,\)"),
        ({"codebook": torch.zeros(4, 2)}, "broken"),
    ],
)
def test_a_file_of_other_bits_is_refused_in_one_line(tmp_path, tensors, line):
    make_store(tmp_path)
    save_file(tensors, tmp_path / "codebook.safetensors")
    manifest = json.loads((tmp_path / "store.json").read_text())
    manifest["codebook"] = described(tmp_path / "codebook.safetensors")
    (tmp_path / "store.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=line) as refused:
        TokenStore(tmp_path).verify()
    tiny.one_line(str(refused.value))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"codebook_size": 2**17 - 1}, "lookup is signs, but codebook_size 131071 is no power of 2"),
        ({"codebook_size": 2**24 + 1}, "expected a whole number from 1 to 16777216"),
        ({"coding": "rans", "coding_tables": {"bytes": 1, "sha256": "a" * 64}}, "rows of so many codes can't be coded"),
    ],
)
def test_a_manifest_that_can_not_be_is_refused_in_one_line(tmp_path, change, line):
    make_store(tmp_path)
    manifest = json.loads((tmp_path / "store.json").read_text())
    (tmp_path / "store.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(UserError, match=line):
        TokenStore(tmp_path)


def test_other_codes_are_not_written_as_signs():
    with pytest.raises(UserError, match="not all vectors of -1 and 1 in the order of bits"):
        tensors_of(sign_codes(3).flip(0), "signs")


def test_a_codebook_of_gigabytes_is_refused():
    with pytest.raises(UserError, match=r"16,777,216 codes of 256 numbers takes 17\.2 GB"):
        tensors_of(torch.empty(2**24, 256, device="meta"), "euclidean")


def test_synonyms_of_signs_differ_in_the_fewest_bits():
    found = nearest_codes(sign_codes(4), "signs", 6)
    assert found[5].tolist() == [5 ^ 1, 5 ^ 2, 5 ^ 4, 5 ^ 8, 5 ^ 3, 5 ^ 5]
    by_distance = nearest_codes(sign_codes(4), "euclidean", 4)
    assert torch.equal(found[:, :4].sort().values, by_distance.sort().values)
    assert nearest_codes(sign_codes(2), "signs", 9).shape == (4, 3)


def test_synonyms_among_too_many_codes_are_refused():
    with pytest.raises(UserError, match="65,537 codes have too many pairs"):
        nearest_codes(torch.zeros(65537, 1), "euclidean", 5)


def test_rows_of_so_many_codes_can_not_be_coded(tmp_path):
    make_store(tmp_path / "store")
    with pytest.raises(UserError, match="has 131,072 codes: tables are for at most 65,536") as refused:
        code_store(CodeStoreConfig(store=str(tmp_path / "store"), output_dir=str(tmp_path / "coded")))
    tiny.one_line(str(refused.value))
    assert not (tmp_path / "coded").exists()


def test_the_published_files_have_no_place_for_so_many_codes(tmp_path):
    make_store(tmp_path / "store")
    with pytest.raises(UserError, match=r"has 131,072 codes, .* Use --format parquet") as refused:
        export_store(ExportConfig(store=str(tmp_path / "store"), format="seit", out=str(tmp_path / "out")))
    tiny.one_line(str(refused.value))
    assert not (tmp_path / "out").exists()


def test_parquet_holds_the_ids_and_comes_back(tmp_path):
    ids = make_store(tmp_path / "store")
    export_store(ExportConfig(store=str(tmp_path / "store"), format="parquet", out=str(tmp_path / "out")))
    import_store(ImportConfig(source="parquet", data=str(tmp_path / "out"), output_dir=str(tmp_path / "again")))
    again = open_store(tmp_path / "again")
    again.verify()
    assert torch.equal(again.ids(range(9)), ids)
    assert (again.lookup, again.size.codebook < 100) == ("signs", True)


def test_fewer_codes_of_signs_are_looked_up_by_distance(tmp_path):
    ids = make_store(tmp_path / "store", bits=6)
    reduce_codebook(ReduceCodebookConfig(store=str(tmp_path / "store"), codes=5, output_dir=str(tmp_path / "few")))
    few, kept = open_store(tmp_path / "few"), json.loads((tmp_path / "few" / "reduced.json").read_text())["codes"]
    few.verify()
    assert few.lookup == "euclidean"
    assert torch.equal(few.codebook, sign_codes(6)[kept])
    distance = torch.tensor([[(int(one) ^ other).bit_count() for other in kept] for one in ids.flatten()])
    chosen = distance.gather(1, few.ids(range(9)).flatten()[:, None])[:, 0]
    assert torch.equal(chosen, distance.amin(dim=1))
