"""Tokenising on a Ray of this machine: the same shards, the same store, one line where something is wrong."""

import shutil

import numpy as np
import pytest

import tiny
from seitpp.runtime.errors import UserError
from seitpp.tokenizers import tokenize as stage
from seitpp.tokenizers.tokenize_ray import ShardMaker, TokenizeRayConfig


def content(folder):
    """{name: bytes} of all visible files."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def command(images, tokenizer_folder, output, **fields):
    fields = {"images": images, "tokenizer": tokenizer_folder, "output_dir": output, "rows_per_shard": 8, **fields}
    return [
        "-m",
        "seitpp.tokenizers.tokenize_ray",
        *(word for name, value in fields.items() for word in (f"--{name}", str(value))),
    ]


@pytest.mark.slow
def test_a_cluster_goes_on_with_a_half_made_store_to_the_bytes_of_one_process(images, tokenizer_folder, tmp_path):
    pytest.importorskip("ray")
    whole, started = tmp_path / "whole", tmp_path / "started"
    stage.main(
        stage.TokenizeConfig(
            images=str(images), tokenizer=str(tokenizer_folder), output_dir=str(whole), rows_per_shard=8
        )
    )
    shutil.copytree(whole, started)
    for name in ("store.json", "shard-00001.json", "shard-00003.arrow"):
        (started / name).unlink()
    kept = (started / "shard-00000.arrow").stat().st_mtime_ns
    done = tiny.run(*command(images, tokenizer_folder, started, num_actors=1), timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"{started}: 30 images, 3 classes, 0 skipped\n")
    assert content(started) == content(whole)
    assert (started / "shard-00000.arrow").stat().st_mtime_ns == kept


def test_an_error_of_a_worker_is_its_answer_so_that_nothing_is_tried_again(images, tokenizer_folder, tmp_path):
    (tmp_path / "store" / "shard-00002.arrow").mkdir(parents=True)
    config = TokenizeRayConfig(
        images=str(images), tokenizer=str(tokenizer_folder), output_dir=str(tmp_path / "store"), rows_per_shard=8
    )
    worker = ShardMaker(config)
    assert worker({"number": np.array([0, 3])}) == {"images": [14], "problem": [""]}
    (problem,) = worker({"number": np.array([2])})["problem"]
    assert tiny.one_line(problem).startswith("Is a directory: ")


def test_without_ray_the_command_says_how_to_get_it(images, tokenizer_folder, tmp_path):
    hide = "import sys; sys.modules['ray'] = None"
    hidden = hide + "; from seitpp.tokenizers.tokenize_ray import cli; sys.argv[1:] = {}; cli()"
    words = command(images, tokenizer_folder, tmp_path / "store")[2:]
    done = tiny.run("-c", hidden.format(words))
    assert done.returncode == 1
    assert tiny.one_line(done.stderr) == "error: seitpp.tokenizers.tokenize_ray needs Ray: pip install 'seitpp[ray]'"


@pytest.mark.parametrize("field", [{"num_actors": 0}, {"gpus_per_actor": -1.0}, {"cpus_per_actor": 0.0}])
def test_fields_out_of_range_are_refused_by_name(field):
    with pytest.raises(UserError, match=f"TokenizeRayConfig: {next(iter(field))} = "):
        TokenizeRayConfig(images="a", tokenizer="b", output_dir="c", **field)
