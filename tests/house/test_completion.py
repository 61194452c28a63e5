"""`seitpp completion`: what a shell offers is what the commands take."""

import argparse
import subprocess
import sys

import pytest

from seitpp import completion
from seitpp.cli import OTHERS, STAGES, main
from seitpp.completion import SHELLS, script, whole_parser

FILES = {"bash": "files"}


def parsers_of(parser):
    """{command: its parser}."""
    (commands,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return commands.choices


@pytest.fixture(scope="module")
def parsers():
    return parsers_of(whole_parser(STAGES, OTHERS, FILES))


def flags_of(parser):
    return {action.option_strings[-1]: action for action in parser._actions if action.option_strings}


def test_every_command_is_offered(parsers):
    assert set(parsers) == {*STAGES, *OTHERS}


def test_flags_of_a_stage_are_its_fields_with_those_of_its_parts_and_its_recipes(parsers):
    flags = flags_of(parsers["pretrain"])
    assert {"--store", "--dry_run", "--init_weights", "--augment.color_adapt", "--model.encoder.width"} <= set(flags)
    assert set(flags["--dry_run"].choices) == {"true", "false"}
    assert set(flags["--lr_decay"].choices) == {"cosine", "poly"}
    assert {"demo", "vit_base"} <= set(flags["--config"].choices)
    assert flags["--store"].complete == FILES
    assert not hasattr(flags["--steps"], "complete")
    (files,) = [action for action in parsers["predict"]._actions if not action.option_strings]
    assert (files.dest, files.complete) == ("files", FILES)


def test_launch_offers_recipes_and_stages(parsers):
    assert set(flags_of(parsers["launch"])["--recipe"].choices) == {"ddp_bf16", "fsdp2"}
    (stage,) = [action for action in parsers["launch"]._actions if action.dest == "stage"]
    assert set(stage.choices) == set(STAGES)


def test_bash_completes_what_is_typed(tmp_path):
    pytest.importorskip("shtab")
    (tmp_path / "completion").write_text(script("bash", STAGES, OTHERS))
    (tmp_path / "photos").mkdir()

    def offered(*words):
        typed = " ".join(f"'{word}'" for word in words)
        asked = (
            f"source completion; COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; "
            "$(complete -p seitpp | sed 's/.*-F \\([^ ]*\\) .*/\\1/') seitpp; printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, cwd=tmp_path, check=True)
        return set(done.stdout.split())

    assert offered("seitpp", "pre") == {"pretrain", "predict"}
    assert offered("seitpp", "pretrain", "--init") == {"--init_weights"}
    assert {"demo", "debug"} <= offered("seitpp", "pretrain", "--config", "de")
    assert offered("seitpp", "launch", "--recipe", "fs") == {"fsdp2"}
    assert offered("seitpp", "tokenize", "--images", "pho") == {"photos"}


@pytest.mark.parametrize("shell", SHELLS[1:])
def test_the_other_shells_get_scripts_too(shell):
    pytest.importorskip("shtab")
    text = script(shell, STAGES, OTHERS)
    assert "pretrain" in text
    assert "vit_base" in text


def test_a_shell_that_is_none_or_a_missing_package_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["seitpp"])
    for words, said in ((["fish"], "bash, zsh, tcsh"), ([], "bash, zsh, tcsh")):
        with pytest.raises(SystemExit) as stopped:
            main(["completion", *words])
        assert stopped.value.code == 1
        assert said in capsys.readouterr().err
    monkeypatch.setattr(completion, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main(["completion", "bash"])
    assert capsys.readouterr().err == "error: shtab is not installed: pip install 'seitpp[completion]'\n"
