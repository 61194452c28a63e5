"""The pages of docs/: links lead somewhere, every page is in the site's list, and the code of `extending.md` runs."""

import re
import subprocess
import sys
import tomllib

import pandas as pd
import pytest
import yaml

import tiny
from seitpp.report.reported import REPORTED
from seitpp.report.sections import QUESTIONS
from seitpp.runtime.results import read_results
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.store import open_store
from tiny_demo import make_demo

DOCS = tiny.ROOT / "docs"
PAGES = {path.name: path.read_text() for path in sorted(DOCS.glob("*.md"))}
_FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


# Links


def anchors(text):
    """What the headings of a page are called in a link."""
    titles = re.findall(r"^#+ (.+)$", _FENCED.sub("", text), re.M)
    words = [re.sub(r"[^\w\s-]", "", title.replace("`", "")).strip().lower() for title in titles]
    return {re.sub(r"[-\s]+", "-", each) for each in words} | set(re.findall(r"^::: ([\w.]+)$", text, re.M))


def listed(navigation):
    """The pages that the site's list of pages names."""
    for value in navigation.values() if isinstance(navigation, dict) else navigation:
        if isinstance(value, str):
            yield value
        else:
            yield from listed(value)


@pytest.mark.parametrize("name", PAGES)
def test_every_link_of_a_page_leads_to_a_page_and_to_a_heading_of_it(name):
    wrong = []
    for target in _LINK.findall(_FENCED.sub("", PAGES[name])):
        page, _, anchor = target.partition("#")
        if "://" in target or (page and (DOCS / page).is_file() and not anchor):
            continue
        text = PAGES.get(page or name)
        if text is None or (anchor and anchor not in anchors(text)):
            wrong.append(target)
    assert wrong == []


def test_the_list_of_pages_names_every_page_once():
    site = yaml.load((tiny.ROOT / "mkdocs.yml").read_text(), Loader=yaml.BaseLoader)
    assert sorted(listed(site["nav"])) == sorted(PAGES)


def test_the_site_asks_for_nothing_from_elsewhere_when_it_is_read():
    site = yaml.load((tiny.ROOT / "mkdocs.yml").read_text(), Loader=yaml.BaseLoader)
    assert site["theme"]["font"] == "false"
    assert "http" not in str([site.get("extra_javascript"), site.get("extra_css"), site["plugins"]])


# What pages say of the program


def rows_of(name, first):
    """Cells of the table of a page whose first row begins with a cell."""
    table = PAGES[name].split(f"| {first} |", 1)[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.split("\n")[2:]]


def test_the_page_of_the_report_names_its_questions_and_sections_in_their_order():
    rows = rows_of("report-page.md", "question")
    assert [row[0] for row in rows if row[0]] == [question.title for question in QUESTIONS]
    assert [row[1] for row in rows] == [section.title for question in QUESTIONS for section in question.sections]


def test_reported_numbers_are_those_of_the_table_of_reported_numbers():
    table = pd.read_csv(REPORTED)
    full = table[
        (table["dataset"] == "imagenet-1k") & (table["bytes"] == 1_400_000_000) & (table["metric"] == "accuracy")
    ]
    known = dict(zip(full["method"], full["value"], strict=True))
    shown = [float(row[2]) for row in rows_of("reproducing.md", "method")]
    assert shown == [round(100 * known[name], 1) for name in ("SeiT", "SeiT++, no MTM", "SeiT++")]


def test_every_extra_is_on_the_page_of_installing_it():
    extras = tomllib.loads((tiny.ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = [each for row in rows_of("install.md", "extra") for each in re.findall(r"`([\w-]+)`", row[0])]
    assert sorted(named) == sorted(extras)


# The code of extending.md

FILES = {
    re.match(r"# (\w+\.py)\n", block)[1]: block
    for block in re.findall(r"^```python\n(.*?)^```", PAGES["extending.md"], re.DOTALL | re.MULTILINE)
}


@pytest.fixture(scope="module")
def world(tmp_path_factory, images, test_images, tokenizer_folder):
    """A folder with the page's files and a tiny demo in it."""
    folder = tmp_path_factory.mktemp("extending")
    for name, content in FILES.items():
        (folder / name).write_text(content)
    make_demo(folder, images, test_images, tokenizer_folder)
    return folder


@pytest.fixture
def here(world, monkeypatch):
    """In that folder, as a user is."""
    monkeypatch.chdir(world)
    monkeypatch.syspath_prepend(str(world))
    return world


def in_folder(folder, *words):
    """Run `python words...` in a folder."""
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_has_these_files():
    names = ("colour_blocks", "test_colour_blocks", "holes", "loop", "test_holes", "selective", "test_selective")
    assert list(FILES) == [f"{name}.py" for name in names]


def test_the_tests_of_the_page_hold(here):
    tests = [name for name in FILES if name.startswith("test_")]
    said = in_folder(here, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
    assert "5 passed" in said


@pytest.mark.slow
def test_a_training_takes_an_augmentation_by_its_path(here):
    words = "--store store/train --steps 2 --batch_size 8 --lr 0.001 --model.encoder.width 24 --model.encoder.depth 1"
    more = "--model.encoder.heads 3 --model.decoder.width 24 --model.decoder.depth 1 --model.decoder.heads 3"
    command = ["-m", "seitpp.cli", "pretrain", *words.split(), *more.split(), "--output_dir", "own-mtm"]
    assert "own-mtm" in in_folder(here, *command, "--augment.own", "holes:Holes")
    assert (here / "own-mtm" / "summary.json").is_file()


def test_a_store_of_the_tokenizer_is_one_like_any_other(here, images):
    tokenizer = "colour_blocks:ColourBlocks"
    in_folder(here, "-m", "seitpp.cli", "tokenize", "--images", images, "--tokenizer", tokenizer, "--output_dir", "own")
    store = open_store(here / "own")
    assert (len(store), store.grid, store.codebook_size) == (30, (8, 8), 64)
    assert store.tokenizer["fingerprint"] == load_tokenizer(tokenizer).fingerprint
    store.verify()


def test_the_loop_runs_on_a_store_and_every_view_has_its_hole(here):
    lines = in_folder(here, "loop.py", here / "store" / "train").splitlines()
    assert [line.split(" ")[0] for line in lines] == ["0", "1", "2"]
    assert all("(8, 4, 6)" in line and int(line.split()[-1]) >= 4 for line in lines)


@pytest.mark.slow
def test_the_evaluator_is_a_stage_whose_results_the_report_has(here):
    words = "--classifier finetune-categories --store store/test --output_dir own-run"
    command = ["selective.py", *words.split()]
    said = in_folder(here, *command)
    assert len(said.splitlines()) == 2
    assert "finished before" in in_folder(here, *command)
    results = read_results([here / "own-run"])
    assert results["metric"].tolist() == ["accuracy_at_0.5"] * 2
    assert results["test_images"].tolist() == [12, 12]
    in_folder(here, "-m", "seitpp.cli", "report", "own-run", "store", "--out", "own-report.html")
    assert "accuracy_at_0.5" in set(read_results([here])["metric"])
