"""The report's storage table: bytes of stores against those of the same images as files."""

import io
import json

import numpy as np
import pytest
from PIL import Image

import tiny
from report_runs import report
from seitpp.report import storage
from seitpp.report.storage import break_even, storage_table
from seitpp.runtime.errors import UserError
from seitpp.tokens.store import TokenStore
from seitpp.tokens.subset import SubsetConfig
from seitpp.tokens.subset import main as make_subset


def jpeg_bytes(paths, quality):
    """Reference: each PNG encoded as JPEG."""
    total = 0
    for path in paths:
        buffer = io.BytesIO()
        with Image.open(path) as image:
            image.convert("RGB").save(buffer, "JPEG", quality=quality)
        total += len(buffer.getvalue())
    return total


def test_storage_counts_the_bytes_of_store_png_and_jpeg(demo):
    store = demo / "store" / "train"
    pngs = sorted((demo / "images").rglob("*.png"))
    table = storage_table([store], demo / "images").set_index("kind")
    assert list(table.index) == ["packed tokens", "token store", "PNG files", "JPEG, quality 75", "JPEG, quality 90"]
    assert table["total_bytes"].to_dict() == {
        "packed tokens": 12 * 24,
        "token store": sum(path.stat().st_size for path in store.iterdir()),
        "PNG files": sum(path.stat().st_size for path in pngs),
        "JPEG, quality 75": jpeg_bytes(pngs, 75),
        "JPEG, quality 90": jpeg_bytes(pngs, 90),
    }
    np.testing.assert_allclose(table["bytes_per_image"], table["total_bytes"] / 12)


def test_the_page_shows_the_storage_table_and_what_comes_on_top(demo):
    text = report(demo).text
    total = sum(path.stat().st_size for path in (demo / "images").rglob("*.png"))
    assert f"PNG files {total / 12:,.0f} {total / 12 / 24:.1f}" in text
    assert f"the codebook ({(demo / 'store' / 'train' / 'codebook.safetensors').stat().st_size} bytes)" in text
    assert "The tokenizer\u2019s weights, 4.32 kB, are extra" in text


def test_jpegs_of_many_images_are_scaled_up_from_evenly_spaced_ones(demo, monkeypatch):
    monkeypatch.setattr(storage, "MOST_IMAGES", 3)
    pngs = sorted((demo / "images").rglob("*.png"))
    table = storage_table([demo / "store" / "train"], demo / "images").set_index("kind")
    wanted = round(jpeg_bytes([pngs[0], pngs[5], pngs[11]], 75) / 3 * 12)
    assert table.loc["JPEG, quality 75", ["total_bytes", "measured_images"]].tolist() == [wanted, 3]
    assert table.loc["PNG files", "measured_images"] == 12
    assert "was measured on 3 images, evenly spaced, and scaled up to all 12" in report(demo).text


def test_originals_of_another_size_are_not_called_png_of_these_pixels(demo):
    path = min((demo / "images").rglob("*.png"))
    Image.new("RGB", (100, 50)).save(path)
    kinds = storage_table([demo / "store" / "train"], demo / "images")["kind"]
    assert list(kinds[2:]) == ["image files", "PNG", "JPEG, quality 75", "JPEG, quality 90"]


def test_without_the_images_only_the_store_is_measured(demo):
    (demo / "images").rename(demo / "elsewhere")
    text = report(demo, images=demo / "elsewhere" / "train").text
    assert "PNG files" in text
    (demo / "elsewhere").rename(demo.parent / "far")
    text = report(demo).text
    assert "PNG files" not in text
    assert "The images are not at hand" in text
    with pytest.raises(UserError, match="does not hold all images of the store"):
        report(demo, images=demo / "tokenizer")


def test_a_fixed_cost_pays_off_after_enough_images_or_never():
    assert break_even(1000, 100, 300) == 5
    assert break_even(1001, 100, 300) == 6
    assert break_even(1000, 300, 300) is None


def say_image_size(store):
    manifest = json.loads((store / "store.json").read_text())
    manifest["preprocessing"] = {"image_size": [16, 24]}
    (store / "store.json").write_text(json.dumps(manifest))


def test_a_subset_counts_as_its_own_rows_and_their_part_of_the_bytes(tmp_path):
    store = tiny.make_store(tmp_path / "all" / "train", tiny.random_ids(400, 37, (8, 8)), rows_per_shard=90)
    say_image_size(store)
    make_subset(SubsetConfig(store=str(store), output_dir=str(tmp_path / "part" / "train"), count=100))
    whole, part = (storage_table([folder]).set_index("kind") for folder in (store, tmp_path / "part" / "train"))
    assert part.loc["packed tokens", "total_bytes"] == 100 * 64
    assert part["measured_images"].tolist() == [100, 100]
    rows = whole.loc["token store", "total_bytes"] - (store / "codebook.safetensors").stat().st_size
    assert part.loc["token store", "total_bytes"] == pytest.approx(rows / 4, abs=6000)  # and its codebook and manifest
    text = report(tmp_path / "part").text
    assert "100 images" in text
    assert "400" not in text


def test_a_subset_beside_its_store_does_not_count_once_more(tmp_path):
    for name, rows in (("train", 12), ("test", 5)):
        say_image_size(tiny.make_store(tmp_path / "all" / name, tiny.random_ids(rows, 37, (4, 6))))
    alone = report(tmp_path / "all").text
    make_subset(SubsetConfig(store=str(tmp_path / "all" / "train"), output_dir=str(tmp_path / "all" / "part"), count=3))
    assert "17 images" in alone
    assert report(tmp_path / "all").text == alone


def test_a_subset_is_compared_with_its_own_images(tmp_path):
    images = tiny.make_images(tmp_path / "pictures", {"ant": 6, "bee": 4})
    keys = sorted(path.relative_to(images).as_posix() for path in images.rglob("*.png"))
    store = tiny.make_store(tmp_path / "all", tiny.random_ids(10, 37, (4, 6)), keys=keys)
    say_image_size(store)
    make_subset(SubsetConfig(store=str(store), output_dir=str(tmp_path / "part"), count=3))
    chosen = TokenStore(tmp_path / "part").keys()
    table = storage_table([tmp_path / "part"], images).set_index("kind")
    assert table.loc["PNG files", "total_bytes"] == sum((images / key).stat().st_size for key in chosen)
