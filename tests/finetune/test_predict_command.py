"""`seitpp predict`: files, folders and standard input, as a table or JSON lines, whatever is broken among them."""

import io
import json
import os
import sys

import pytest
import torch

import seitpp
import tiny
from seitpp.finetune import predict_command as stage
from seitpp.finetune.classifier import Classifier, save_classifier
from seitpp.finetune.predict import predict
from seitpp.mtm.encoder import EncoderConfig
from seitpp.runtime.command import parse, run_command

NAMES = ["ant", "bee", "cow", "dog", "eel", "fox"]


@pytest.fixture(scope="module")
def world(tmp_path_factory, tokenizer_folder):
    """A classifier of six classes, and a folder of seven images in two folders."""
    folder = tmp_path_factory.mktemp("predicted")
    torch.manual_seed(4)
    shape = EncoderConfig(width=24, depth=1, heads=3, embedding_std=0.5)
    classifier = Classifier(shape, view=tiny.GRID, codebook_size=tiny.CODES, embedding_dim=5, classes=6)
    classifier.head.weight.data *= 20
    fingerprint = seitpp.load_tokenizer(tokenizer_folder).fingerprint
    save_classifier(folder / "run" / "seed-0" / "weights", classifier, tokenizer=fingerprint, class_names=NAMES)
    tiny.make_images(folder / "photos", {"a": 4, "b": 3})
    return folder


@pytest.fixture
def told(world, tokenizer_folder, capsys):
    """Run the command: (exit code, lines on standard output, lines on standard error)."""

    def told(*words, **flags):
        flags = {"classifier": world / "run", "tokenizer": tokenizer_folder, "mixed_precision": "no", **flags}
        argv = [*map(str, words), *(str(word) for name, value in flags.items() for word in (f"--{name}", value))]
        with pytest.raises(SystemExit) as stopped:
            run_command(stage.main, stage.PredictConfig, recipes="predict", argv=argv)
        said = capsys.readouterr()
        return stopped.value.code, said.out.split("\n")[:-1], said.err.split("\n")[:-1]

    return told


def files_in(world):
    return [str(path) for path in sorted((world / "photos").glob("*/*.png"))]


def typed(text, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))


# What is printed


def test_json_lines_are_what_the_python_api_predicts(world, told, tokenizer_folder):
    files = files_in(world)
    code, lines, errors = told(world / "photos", format="jsonl", top=3, batch_size=2)
    assert (code, errors) == (0, [])
    expected = predict(world / "run", files, tokenizer=tokenizer_folder, top=3)
    assert [json.loads(line)["file"] for line in lines] == files
    for place, line in enumerate(lines):
        found = json.loads(line)["predictions"]
        assert [each["class"] for each in found] == expected.names[place]
        assert [each["probability"] for each in found] == pytest.approx(
            expected.probabilities[place].tolist(), abs=1e-4
        )


def test_a_table_has_a_row_an_image_and_one_head(world, told):
    code, lines, errors = told(*files_in(world), batch_size=3)
    assert (code, errors) == (0, [])
    assert lines[0].split() == ["image", *(word for place in range(1, 6) for word in ("top", str(place)))]
    assert [line.split()[0] for line in lines[1:]] == files_in(world)
    assert all(line.count("%") == 5 for line in lines[1:])


def test_there_are_no_more_classes_than_the_classifier_knows(world, told):
    _, lines, _ = told(files_in(world)[0], format="jsonl", top=50)
    found = json.loads(lines[0])["predictions"]
    assert sorted(each["class"] for each in found) == NAMES
    assert sum(each["probability"] for each in found) == pytest.approx(1, abs=1e-4)


def test_paths_come_from_standard_input_too(world, told, monkeypatch):
    files = files_in(world)
    typed("\n".join([files[5], "", str(world / "photos" / "a")]).encode(), monkeypatch)
    code, lines, _ = told(files[6], "-", format="jsonl")
    assert code == 0
    assert [json.loads(line)["file"] for line in lines] == [files[6], files[5], *files[:4]]


def test_standard_input_is_read_a_part_at_a_time(world, told, monkeypatch):
    """What bounds memory: of endless lines, only as many as are classified at once are asked for."""
    given, asked = files_in(world), []

    class Endless:
        def __iter__(self):
            for number in range(200):
                asked.append(len(classified))
                yield os.fsencode(given[number % len(given)]) + b"\n"

    classified, plain = [], stage.most_likely

    def counted(classifier, ids, top):
        classified.extend(ids)
        return plain(classifier, ids, top)

    monkeypatch.setattr(stage, "most_likely", counted)
    monkeypatch.setattr(sys, "stdin", type("Stream", (), {"buffer": Endless()}))
    _, lines, _ = told("-", format="jsonl", batch_size=5)
    assert len(lines) == 200
    assert max(number - done for number, done in enumerate(asked)) < 2 * 8 * 5


def test_the_same_image_twice_is_printed_twice(world, told):
    _, lines, _ = told(files_in(world)[0], files_in(world)[0], format="jsonl")
    assert len(lines) == 2
    assert lines[0] == lines[1]


# What is broken


def test_broken_images_are_a_line_each_and_the_rest_goes_on(world, told, tmp_path):
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "broken.png").write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    files = files_in(world)
    words = (files[0], tmp_path / "none.png", tmp_path / "some", tmp_path / "empty", files[1])
    code, lines, errors = told(*words, format="jsonl", batch_size=1)
    assert code == 1
    assert [json.loads(line)["file"] for line in lines] == files[:2]
    assert len(errors) == 3
    for name, line in zip(("none.png", "broken.png", "empty"), errors, strict=True):
        assert line.startswith("error: ")
        assert line.count(name) == 1
    assert errors[2] == f"error: {tmp_path / 'empty'}: holds no images: name images, or a folder of some"


def test_nothing_but_broken_images_is_no_traceback(told, tmp_path):
    code, lines, errors = told(tmp_path / "none.png")
    assert (code, lines, len(errors)) == (1, [], 1)


def test_names_of_any_bytes_are_one_line_each(world, told, tmp_path, monkeypatch):
    odd = os.fsencode(tmp_path) + b"/[bold]\xff\tx.png"
    with open(files_in(world)[0], "rb") as source, open(odd, "wb") as target:  # noqa: PTH123
        target.write(source.read())
    for style in ("jsonl", "table"):
        typed(odd + b"\n", monkeypatch)
        code, lines, errors = told("-", format=style)
        assert (code, errors) == (0, [])
        assert len(lines) == (1 if style == "jsonl" else 2)
    assert r"[bold]\udcff\tx.png" in lines[1]


def test_no_path_at_all_is_said(told, monkeypatch):
    code, _, errors = told()
    assert code == 1
    assert "files = () must name files, folders or -" in errors[0]
    typed(b"\n", monkeypatch)
    code, _, errors = told("-")
    assert code == 1
    assert "standard input names no image" in tiny.one_line("\n".join(errors))


def test_another_tokenizer_is_refused(world, told, tmp_path):
    other = tiny.make_tokenizer(tmp_path / "other", seed=9)
    code, lines, errors = told(files_in(world)[0], tokenizer=other)
    assert (code, lines) == (1, [])
    assert "belongs to tokenizer" in tiny.one_line("\n".join(errors))


# Words without a flag


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (["a.jpg", "--classifier", "c", "b.jpg", "--tokenizer", "t"], ("a.jpg", "b.jpg")),
        (["--classifier=c", "--tokenizer=t", "-"], ("-",)),
        (["--classifier=c", "--tokenizer=t", "--", "--a.jpg", "-b.jpg"], ("--a.jpg", "-b.jpg")),
        (["--classifier=c", "--tokenizer=t", "1", "null", "[x].jpg", "{y: z}"], ("1", "null", "[x].jpg", "{y: z}")),
        (["--classifier=c", "--tokenizer=t", "--files", "[a.jpg, b.jpg]"], ("a.jpg", "b.jpg")),
    ],
)
def test_words_that_follow_no_flag_are_files_as_they_are_typed(words, files):
    assert parse(stage.PredictConfig, words, recipes="predict").files == files


def test_of_many_files_the_command_line_is_read_at_once():
    words = [f"{number}.jpg" for number in range(20_000)]
    config = parse(stage.PredictConfig, [*words, "--classifier=c", "--tokenizer=t"], recipes="predict")
    assert config.files == tuple(words)
