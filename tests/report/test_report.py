"""The report: its numbers are those of the files, it says what they say whichever way they go, and it stands alone."""

import html
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from PIL import Image

import tiny
from seitpp.report import storage
from seitpp.report.charts import Line, bar, line_chart, ticks
from seitpp.report.findings import baseline_sentences, difference_sentence, entropy_sentence, not_improved
from seitpp.report.found_runs import find_runs
from seitpp.report.picture_rows import ROWS, picture_rows
from seitpp.report.provenance import command_parts
from seitpp.report.report import cli, write_report
from seitpp.report.scores import Difference, Score, differences
from seitpp.report.storage import break_even, storage_table
from seitpp.runtime.errors import UserError
from seitpp.runtime.results import COLUMNS, Result, write_results
from seitpp.tokens.store import TokenStore
from seitpp.tokens.subset import SubsetConfig
from seitpp.tokens.subset import main as make_subset

MTM, SCRATCH = "fine-tuned from MTM", "from scratch"
PIXELS = "linear probe, 16 x 16 pixels"
COMMAND = "accelerate launch -m seitpp.mtm.pretrain --config demo --task 'a --b c' --output_dir runs/mtm"


def write_run(folder, stage, *, summary=None, metrics=(), results=(), **config):
    """A run folder as seitpp.runtime.run_folder leaves it."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"stage": stage, **config}))
    environment = {"python": "3.11.9", "device": "cpu", "git_commit": "c0ffee12", "packages": {"torch": "2.9"}}
    (folder / "env.json").write_text(json.dumps(environment))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in metrics))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    if results:
        write_results(folder, results)
    return folder


def measured(method, accuracies, *, task="pets", metric="accuracy", train=40, test=50):
    """Results of a method, one a seed."""
    return [
        Result(
            task=task, method=method, metric=metric, seed=seed, value=value, train_images=train, test_images=test
        )
        for seed, value in enumerate(accuracies)
    ]  # fmt: skip


def write_picture(folder, name, columns, *, side=6):
    """A picture as seitpp.runtime.pictures.image_grid writes it; row r is of grey 10 r + column."""
    rows = len(ROWS[name])
    pixels = np.full((rows * (side + 2) - 2, columns * (side + 2) - 2, 3), 255, np.uint8)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (side + 2), column * (side + 2)
            pixels[top : top + side, left : left + side] = 10 * row + column
    Image.fromarray(pixels).save(folder / name)


def write_store(folder, keys):
    """A store of 4 x 6 tokens for images of 16 x 24 pixels, K = 37, in two shards."""
    folder.mkdir(parents=True)
    shards = []
    for name, part in (("shard-00000.arrow", keys[:7]), ("shard-00001.arrow", keys[7:])):
        tokens = pa.array([bytes(24)] * len(part), pa.binary(24))
        table = pa.table({"tokens": tokens, "label": pa.array([0] * len(part), pa.int32()), "key": part})
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        shards.append({"file": name, "rows": len(part)})
    (folder / "codebook.safetensors").write_bytes(b"x" * 777)
    manifest = {
        "tokenizer": {"name": "vq", "fingerprint": "a" * 64}, "codebook_size": 37, "bits": 8, "grid": [4, 6],
        "preprocessing": {"image_size": [16, 24]}, "shards": shards,
    }  # fmt: skip
    (folder / "store.json").write_text(json.dumps(manifest))


def write_finetuning(folder, method, accuracies, **config):
    """A run of seitpp.finetune.train with a loss curve for each seed."""
    run = write_run(
        folder, "finetune.train", summary={"accuracy": float(np.mean(accuracies))}, task="pets", method=None,
        weights="runs/mtm" if method == MTM else None, results=measured(method, accuracies), **config,
    )  # fmt: skip
    for seed in range(len(accuracies)):
        losses = [{"step": step, "loss": 2.5 - 0.1 * step - 0.01 * seed} for step in range(4)]
        write_run(run / f"seed-{seed}", "finetune.train/once", metrics=losses)
    return run


@pytest.fixture
def demo(tmp_path):
    """A whole demo: every stage, a store of 12 images of 16 x 24 pixels, the images, the log of commands."""
    root = tmp_path / "demo"
    images = tiny.make_images(root / "images" / "train", {"ant": 7, "bee": 5})
    (root / "images" / "ATTRIBUTION.txt").write_text("Drawn by <Ann & Bob>, https://example.org/ann\n")
    keys = sorted(path.relative_to(images).as_posix() for path in images.rglob("*.png"))
    write_store(root / "store" / "train", keys)

    summary = {"psnr": 18.765, "codes_used": 31, "codebook_size": 37, "held_out_images": 23, "fingerprint": "a" * 64}
    tokenizer = write_run(root / "tokenizer", "tokenizers.train", summary=summary)
    write_picture(tokenizer, "reconstructions.png", 16)
    (tokenizer / "weights").mkdir()
    (tokenizer / "weights" / "model.safetensors").write_bytes(b"x" * 4321)

    views = write_run(root / "tokenadapt", "tokenadapt.train", summary={})
    write_picture(views, "views.png", 12)
    methods = ("naive embedding", "naive id", "TokenAdapt", "decode, warp, encode", "tokenizer")
    rows = [("flip", *row) for row in zip(methods, (0.11, 0.12, 0.34, 0.56, 1), (10, 11, 14, 17, 18), strict=True)]
    rows += [("all", *row) for row in zip(methods, (0.21, 0.43, 0.41, 0.57, 1), (9, 12, 11, 16, 19), strict=True)]
    pd.DataFrame(rows, columns=["geometry", "method", "agreement", "psnr"]).to_csv(views / "agreement.csv", index=False)

    summary = {"eval_cross_entropy": 2.871, "eval_accuracy": 0.312, "unigram_baseline": 3.5, "position_baseline": 3.25}
    metrics = [{"step": step, "cross_entropy": 3.6 - step / 100} for step in range(0, 60, 10)]
    metrics.append({"step": 60, "eval_cross_entropy": 2.871})
    pretraining = write_run(root / "mtm", "mtm.pretrain", summary=summary, metrics=metrics, eval_mask_ratio=0.6)
    write_picture(pretraining, "completions.png", 12)

    write_finetuning(root / "finetune", MTM, (0.58, 0.6, 0.62))
    write_finetuning(root / "scratch", SCRATCH, (0.5, 0.52, 0.54))
    baselines = measured("majority class", [0.16]) + measured(PIXELS, [0.55])
    write_run(root / "probe", "finetune.probe", summary={}, results=baselines)
    robustness = [
        *measured(MTM, (0.4, 0.41, 0.42), metric="accuracy, contrast", train=0),
        *measured(SCRATCH, (0.35, 0.36, 0.37), metric="accuracy, contrast", train=0),
        *measured(MTM, (0.2, 0.21, 0.22), metric="accuracy, sketch", train=0, test=30),
        *measured(SCRATCH, (0.25, 0.26, 0.27), metric="accuracy, sketch", train=0, test=30),
    ]
    write_run(root / "robustness", "downstream.robustness", summary={}, results=robustness)
    log = [
        {"stage": "Tokenizer", "command": "seitpp train-tokenizer", "seconds": 61.5, "peak_memory_mb": 812},
        {"stage": "Pre-training", "command": COMMAND, "seconds": 123.4, "peak_memory_mb": 1234},
    ]
    (root / "commands.jsonl").write_text("".join(json.dumps(record) + "\n" for record in log))
    return root


class Page(HTMLParser):
    """A page as its reader gets it: `text`, and `tags` as (name, attributes)."""

    def __init__(self, path):
        super().__init__()
        self.source = Path(path).read_text(encoding="utf-8")
        self.tags, self.words, self.inside = [], [], []
        self.feed(self.source)
        self.text = " ".join(" ".join(self.words).split())
        self.headings = re.findall(r"<h2>(.*?)</h2>", self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside.append(tag)

    def handle_endtag(self, tag):
        if tag in self.inside:
            del self.inside[len(self.inside) - 1 - self.inside[::-1].index(tag) :]

    def handle_data(self, data):
        if "style" not in self.inside:
            self.words.append(data)


def report(*folders, **options):
    """Write a report of folders in a folder beside the first, and read it."""
    out = Path(folders[0]).parent / "page" / "report.html"
    write_report(folders, out, **options)
    return Page(out)


def score(mean, deviation=None, *, method=MTM, kind="pretrained", seeds=3, test_images=50):
    return Score(
        method=method, kind=kind, mean=mean, deviation=deviation, seeds=seeds, train_images=40, test_images=test_images
    )


# --- the page


def test_numbers_on_the_page_are_those_of_the_files(demo):
    text = report(demo).text
    assert "18.8 dB PSNR; they use 31 of 37 codes" in text
    assert "On 23 images held out" in text
    assert "a hidden token costs it 2.87 nats, a guess from token frequencies 3.50" in text
    assert "from frequencies at each position 3.25" in text
    assert "the right code for 31.2 % of the hidden tokens" in text
    assert "with 60 % of the patches hidden" in text
    assert "60.0 ± 2.0" in text
    assert "52.0 ± 2.0" in text
    assert "+8.0 ± 2.8 points, 2.8 times its deviation over 3 seeds" in text  # sqrt(2² + 2²) = 2.83
    assert "40 / 50" in text
    assert "With 50 test images, one standard error of an accuracy of 60.0 % is 6.9 points" in text  # sqrt(.6 .4 / 50)


def test_the_summary_names_the_key_figures(demo):
    lead = re.search(r'<p class="lead">(.*?)</p>', report(demo).source, re.DOTALL).group(1)
    lead = " ".join(html.unescape(lead).split())
    assert lead.startswith(
        "12 images of 16 \u00d7 24 pixels became 4 \u00d7 6 tokens each, once: 24 bytes an image, packed, against "
    )
    assert "Accuracy on pets rises from 52.0 ± 2.0 % (from scratch) to 60.0 ± 2.0 % (from MTM)" in lead
    assert f"the best simple baseline ({PIXELS}) reaches 55.0 %." in lead


def test_the_best_way_on_tokens_alone_is_bold_in_each_row(demo):
    source = report(demo).source
    table = source[source.index("Agreement with the tokens") : source.index("PSNR of the decoded tokens")]
    assert re.findall(r"<b>(.*?)</b>", table) == ["34.0", "43.0"]  # not the references' 56.0 and 57.0


def test_a_way_that_is_no_better_than_a_naive_one_is_said_to_be_so(demo):
    assert "the better of the two naive ways 43.0 %: TokenAdapt is no better here." in report(demo).text


def test_robustness_says_where_pre_training_is_behind(demo):
    text = report(demo).text
    assert "on contrast (+5.0 ± 1.4 points). It is behind on sketch (\u22125.0 ± 1.4 points)." in text
    improved = text[text.rindex("What pre-training does not improve") :]
    assert f"pets on sketch images, {MTM} (\u22125.0 ± 1.4 points)" in improved
    assert "pets on contrast images" not in improved


def test_commands_come_with_their_seconds_and_the_total(demo):
    text = report(demo).text
    assert "Together 3 min 5 s (184.9 s)" in text
    assert "123.4 s, 1,234 MB at most" in text
    assert COMMAND in text


def test_without_a_log_the_commands_are_those_that_the_runs_recorded(tmp_path):
    run = write_run(tmp_path / "mtm", "mtm.pretrain", summary={})
    (run / "env.json").write_text(json.dumps({"command": "pretrain.py --store tokens"}))
    text = report(run).text
    assert "Seconds and quotes were not recorded" in text
    assert "python -m seitpp.mtm.pretrain --store tokens" in text


def test_all_sections_of_a_whole_demo_are_there_and_a_missing_stage_has_none(demo):
    own = ["The way of the data", "Your own images"]
    assert len(report(demo).headings) == 11
    assert report(demo / "probe").headings == [own[0], "Results", own[1], "Environment"]
    assert report(demo / "store" / "train").headings == [own[0], "Storage", own[1]]
    page = report(demo / "scratch", demo / "tokenizer")
    assert page.headings == [own[0], "Images and their reconstructions", "Results", own[1], "Environment"]
    results = page.source[page.source.index('id="results"') :]
    assert "MTM" not in results[: results.index("</section>")]


def test_a_run_that_is_not_finished_has_its_curve_and_no_numbers(tmp_path):
    run = write_run(tmp_path / "mtm", "mtm.pretrain", metrics=[{"step": 9, "loss": 6.1}, {"step": 19, "loss": 5.9}])
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 29, "lo')  # cut off by a kill
    page = report(run)
    assert "This pre-training is not finished" in page.text
    assert "training 5.90" in page.text
    assert "None" not in page.text


def test_names_and_texts_of_a_run_are_never_html(demo):
    evil = '<img src=x onerror="alert(1)">'
    write_run(demo / "evil", "finetune.probe", summary={}, results=measured(evil, [0.3], task=evil + "</table>"))
    (demo / "commands.jsonl").write_text(json.dumps({"stage": evil, "command": f"seitpp --x {evil}</pre>"}) + "\n")
    write_finetuning(demo / "evil-finetune", MTM, (0.1, 0.2), unused=evil)
    page = report(demo)
    assert evil not in page.source
    assert page.text.count(evil) >= 4
    assert not [attributes for tag, attributes in page.tags if "onerror" in attributes or attributes.get("src") == "x"]
    assert "Drawn by <Ann & Bob>" in page.text


def test_the_page_loads_nothing_and_runs_nothing(demo):
    page = report(demo)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form", "video", "audio", "image", "use"}
    for tag, attributes in page.tags:
        for name in ("src", "srcset", "href", "xlink:href", "data", "poster", "background", "style"):
            value = attributes.get(name)
            is_link = tag == "a" and name == "href" and value is not None and value.startswith(("#", "https://"))
            assert value is None or value.startswith("data:image/png;base64,") or is_link, (tag, name, value)
    style = "".join(re.findall(r"<style>(.*?)</style>", page.source, re.DOTALL))
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in page.source


def test_every_picture_has_a_text_and_every_link_a_target(demo):
    page = report(demo)
    assert all("alt" in attributes for tag, attributes in page.tags if tag == "img")
    assert all(
        attributes.get("aria-label") or "aria-hidden" in attributes for tag, attributes in page.tags if tag == "svg"
    )
    places = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = {attributes["href"][1:] for tag, attributes in page.tags if tag == "a" and attributes["href"][0] == "#"}
    assert links <= places


def test_results_csv_has_every_row_of_every_run(demo):
    page_folder = demo.parent / "page"
    report(demo)
    written = pd.read_csv(page_folder / "results.csv")
    files = [pd.read_csv(path) for path in sorted(demo.glob("*/results.csv"))]
    assert list(written.columns) == list(COLUMNS)
    assert sorted(map(tuple, written.to_numpy().tolist())) == sorted(
        tuple(row) for file in files for row in file.to_numpy().tolist()
    )


def test_two_runs_that_measured_the_same_are_told_apart(tmp_path):
    for name, accuracy in (("first", 0.3), ("second", 0.5)):
        write_run(tmp_path / "runs" / name, "finetune.probe", summary={}, results=measured(PIXELS, [accuracy]))
    report(tmp_path / "runs")
    written = pd.read_csv(tmp_path / "page" / "results.csv")
    assert dict(zip(written["method"], written["value"], strict=True)) == {
        f"{PIXELS} (first)": 0.3,
        f"{PIXELS} (second)": 0.5,
    }


# --- what the numbers say


@pytest.mark.parametrize(
    ("pretrained", "scratch", "words"),
    [
        ((0.58, 0.003), (0.518, 0.006), "+6.2 ± 0.7 points, 9.2 times its deviation over 3 seeds. Pre-training helps"),
        ((0.53, 0.006), (0.518, 0.006), "+1.2 ± 0.8 points, 1.4 times its deviation over 3 seeds. Pre-training seems"),
        (
            (0.5, 0.003),
            (0.518, 0.002),
            "\u22121.8 ± 0.4 points, 5.0 times its deviation over 3 seeds. Pre-training lose",
        ),
        ((0.52, 0.02), (0.518, 0.01), "+0.2 ± 2.2 points, within the deviation over 3 seeds: no effect"),
        ((0.58, None), (0.518, 0.01), "+6.2 points. With one seed no deviation is known, so this may be chance."),
    ],
)
def test_the_sentence_on_pre_training_is_true_for_either_sign(pretrained, scratch, words):
    difference = Difference(pretrained=score(*pretrained), scratch=score(*scratch, method=SCRATCH, kind="scratch"))
    assert words in difference_sentence(difference)


def test_when_pre_training_loses_the_page_says_so_at_its_top(tmp_path):
    write_finetuning(tmp_path / "runs" / "finetune", MTM, (0.40, 0.41, 0.42))
    write_finetuning(tmp_path / "runs" / "scratch", SCRATCH, (0.50, 0.51, 0.52))
    write_run(tmp_path / "runs" / "probe", "finetune.probe", summary={}, results=measured(PIXELS, [0.55]))
    text = report(tmp_path / "runs").text
    top = text[: text.index("The way of the data")]
    assert "Accuracy on pets falls from 51.0 ± 1.0 % (from scratch) to 41.0 ± 1.0 % (from MTM)" in top
    assert f"({PIXELS}) reaches 55.0 %, which is more." in top
    assert "Pre-training loses here." in text
    assert f"Pets, {MTM}" not in text
    assert f"pets, {MTM} against from scratch (\u221210.0 ± 1.4 points)" in text


def test_baselines_that_are_not_beaten_are_named():
    found = [
        score(0.6, method=PIXELS, kind="baseline"),
        score(0.58),
        score(0.5, method="majority class", kind="baseline"),
        score(0.5, method=SCRATCH, kind="scratch"),
    ]
    assert baseline_sentences(found) == [
        f"Fine-tuned from MTM does not beat: {PIXELS}.",
        f"From scratch does not beat: {PIXELS}; majority class.",
    ]
    assert baseline_sentences(found[1:3]) == [
        f"Ahead of every simple baseline, of which the best is majority class (50.0 %): {MTM}."
    ]


def test_a_probe_that_a_random_encoder_matches_is_not_an_improvement():
    probe = score(0.4, method="10-NN, MTM encoder", kind="frozen", seeds=1)
    control = score(0.41, method="10-NN, random encoder", kind="baseline", seeds=1)
    phrase = "pets, 10-NN, MTM encoder (40.0 %) against 10-NN, random encoder (41.0 %)"
    assert not_improved("pets", [control, probe], {}) == [phrase]


def test_a_probe_alone_can_show_what_pre_training_does_not_improve(tmp_path):
    probes = measured("10-NN, MTM encoder", [0.4]) + measured("10-NN, random encoder", [0.5])
    page = report(write_run(tmp_path / "probe", "finetune.probe", summary={}, results=probes))
    assert 'id="not-improved"' in page.source
    assert "pets, 10-NN, MTM encoder (40.0 %) against 10-NN, random encoder (50.0 %)" in page.text


def test_differences_are_taken_to_the_best_run_from_scratch():
    runs = [score(0.6), score(0.5, method="from scratch", kind="scratch"), score(0.4, method="short", kind="scratch")]
    assert [difference.scratch.mean for difference in differences(runs)] == [0.5]
    assert differences(runs[1:]) == []


def test_a_model_that_beats_no_baseline_is_said_to_beat_none():
    summary = {"eval_cross_entropy": 6.26, "unigram_baseline": 5.54, "position_baseline": 4.65}
    assert entropy_sentence(summary).endswith("so it does not beat token frequencies or frequencies at each position.")
    summary["eval_cross_entropy"] = 5.0
    assert entropy_sentence(summary).endswith("4.65, so it does not beat frequencies at each position.")
    summary["eval_cross_entropy"] = 4.0
    assert "not" not in entropy_sentence(summary)


# --- storage


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
    assert "the codebook (777 bytes)" in text
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


def test_a_subset_is_compared_with_its_own_images(tmp_path):
    images = tiny.make_images(tmp_path / "pictures", {"ant": 6, "bee": 4})
    keys = sorted(path.relative_to(images).as_posix() for path in images.rglob("*.png"))
    store = tiny.make_store(tmp_path / "all", tiny.random_ids(10, 37, (4, 6)), keys=keys)
    say_image_size(store)
    make_subset(SubsetConfig(store=str(store), output_dir=str(tmp_path / "part"), count=3))
    chosen = TokenStore(tmp_path / "part").keys()
    table = storage_table([tmp_path / "part"], images).set_index("kind")
    assert table.loc["PNG files", "total_bytes"] == sum((images / key).stat().st_size for key in chosen)


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


# --- parts


def test_what_belongs_to_a_run_is_not_a_run(demo):
    write_run(demo / "finetune" / "choice" / "blr-0.1", "finetune.train/once")
    write_run(demo / "images" / "train" / "ant" / "odd", "mtm.pretrain")
    found = find_runs([demo], skip=[demo / "images"])
    names = ["finetune", "mtm", "probe", "robustness", "scratch", "tokenadapt", "tokenizer"]
    assert [run.label for run in found.runs] == names
    assert [(store.label, store.rows) for store in found.stores] == [("store/train", 12)]
    assert len(found.commands) == 2


def test_a_folder_that_is_given_twice_counts_once(demo):
    found = find_runs([demo, demo / "mtm", demo])
    assert len(found.of("mtm.pretrain")) == 1
    assert len(found.commands) == 2


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path):
    for parent in ("a", "b"):
        write_run(tmp_path / parent / "mtm", "mtm.pretrain")
    found = find_runs([tmp_path / "a", tmp_path / "b"])
    assert [run.label for run in found.runs] == [(tmp_path / parent / "mtm").as_posix() for parent in ("a", "b")]


def test_a_picture_is_cut_into_its_labelled_rows(tmp_path):
    write_picture(tmp_path, "reconstructions.png", 16)
    rows = picture_rows(tmp_path, "reconstructions.png", side=12)
    assert [(row.label, row.columns) for row in rows] == [("original", 12), ("decoded from its tokens", 12)]
    assert [row.width for row in rows] == [2 * (12 * 8 - 2)] * 2
    assert all(row.uri.startswith("data:image/png;base64,") for row in rows)
    assert picture_rows(tmp_path, "views.png") == []


def test_ticks_are_round_and_cover_the_range():
    assert ticks(0, 2200, 5) == [0, 1000, 2000, 3000]
    assert ticks(2.87, 6.1, 6) == [2, 3, 4, 5, 6, 7]
    np.testing.assert_allclose(ticks(0.31, 0.34, 4), [0.31, 0.32, 0.33, 0.34])
    assert ticks(5, 5, 3)[0] <= 5 <= ticks(5, 5, 3)[-1]


def test_labels_of_lines_that_end_together_do_not_touch():
    lines = [Line(label=f"line {index}", colour="mtm", points=[(0, 9), (5, 4 + index / 100)]) for index in range(6)]
    drawn = line_chart(lines, title="<six>", x_label="step", y_label="loss")
    heights = sorted(float(y) for y in re.findall(r'class="end c-mtm" x="[\d.]+" y="([\d.]+)"', drawn))
    assert len(heights) == 6
    assert min(np.diff(heights)) >= 14.9
    assert "&lt;six&gt;" in drawn


def test_a_chart_without_points_is_nothing_and_one_point_is_a_dot():
    nothing = Line(label="", colour="mtm", points=[(1, math.nan)])
    assert line_chart([nothing], title="", x_label="", y_label="") == ""
    point = Line(label="", colour="mtm", points=[(7, 3)])
    assert "<circle" in line_chart([point, nothing], title="", x_label="", y_label="")


def test_a_bar_is_as_long_as_its_share_of_the_longest():
    assert 'width="25.00%"' in bar(0.2, 0.8, colour="mtm")
    assert 'x1="12.50%" x2="37.50%"' in bar(0.2, 0.8, colour="mtm", deviation=0.1)
    assert bar(0.2, 0, colour="mtm") == ""


def test_a_command_may_break_before_its_flags_only():
    parts = command_parts(COMMAND)
    assert parts == [
        "accelerate launch -m seitpp.mtm.pretrain",
        "--config demo",
        "--task 'a --b c'",
        "--output_dir runs/mtm",
    ]
    assert " ".join(parts) == COMMAND


# --- bad input


def one_line_error(capsys, *words):
    """What the command says on standard error when it ends with exit code 1."""
    with pytest.raises(SystemExit) as exit_:
        cli([str(word) for word in words])
    assert exit_.value.code == 1
    return tiny.one_line(capsys.readouterr().err)


def test_a_wrong_path_gives_one_line_and_exit_code_1(tmp_path):
    done = tiny.run("-m", "seitpp.report.report", tmp_path / "missing", "--out", tmp_path / "report.html")
    assert done.returncode == 1
    assert tiny.one_line(done.stderr).endswith(
        "is not a folder: give a run, a token store, or a folder that holds some"
    )
    assert not (tmp_path / "report.html").exists()
    assert "Traceback" in tiny.run("-m", "seitpp.report.report", tmp_path / "missing", "--debug").stderr


def test_bad_input_is_explained_in_one_line(demo, tmp_path, capsys):
    out = tmp_path / "page" / "report.html"
    (tmp_path / "empty").mkdir()
    assert "nothing to report in" in one_line_error(capsys, tmp_path / "empty", "--out", out)
    assert "required: RUN" in one_line_error(capsys, "--out", out)
    assert "unrecognized arguments: --imgaes" in one_line_error(capsys, demo, "--imgaes", "x")
    assert "give --images the folder" in one_line_error(capsys, demo, "--out", out, "--images", tmp_path / "no")
    assert "is a folder: give --out a file" in one_line_error(capsys, demo, "--out", tmp_path)
    assert "whose results.csv would be replaced" in one_line_error(capsys, demo, "--out", demo / "probe" / "r.html")
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mtm/config.yaml", "stage: [unclosed"),
        ("mtm/summary.json", "{"),
        ("mtm/summary.json", '{"eval_cross_entropy": "low"}'),
        ("mtm/metrics.jsonl", "no json\n"),
        ("mtm/completions.png", "no picture"),
        ("tokenadapt/agreement.csv", "a,b\n1,2\n"),
        ("finetune/results.csv", "task,method\npets,MTM\n"),
        ("store/train/store.json", "{}"),
        ("commands.jsonl", '{"stage": "no command"}\n'),
    ],
)
def test_a_broken_file_is_named(demo, capsys, name, content):
    (demo / name).write_text(content)
    line = one_line_error(capsys, demo, "--out", demo.parent / "report.html")
    assert f"{demo / name} cannot be read" in line
    assert "mend it or remove it" in line


def test_the_report_does_not_wait_for_torch(demo, tmp_path):
    program = (
        "import sys; from seitpp.report.report import write_report; write_report(sys.argv[1:2], sys.argv[2]); "
        "sys.exit('torch' in sys.modules)"
    )
    done = tiny.run("-c", program, demo / "mtm", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
