"""`seitpp`: all stages under one command."""

import importlib
import sys

import pytest

import tiny
from seitpp.cli import OTHERS, STAGES, main


def test_help_names_every_stage(capsys):
    main(["--help"])
    text = capsys.readouterr().out
    for name in [*STAGES, *OTHERS]:
        assert f"  {name} " in text


@pytest.mark.parametrize("argv", [[], ["-h"], ["help"]])
def test_nothing_at_all_is_a_call_for_help(capsys, argv):
    main(argv)
    assert capsys.readouterr().out.startswith("usage: seitpp STAGE")


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_a_module_with_a_command_line(stage):
    assert callable(importlib.import_module(STAGES[stage][0]).cli)


@pytest.mark.parametrize(
    ("stage", "nearest"),
    [("pretrian", "pretrain"), ("tokenise", "tokenize"), ("fine-tune", "finetune"), ("dmeo", "demo")],
)
def test_an_unknown_stage_names_the_nearest(capsys, stage, nearest):
    with pytest.raises(SystemExit) as stopped:
        main([stage])
    assert stopped.value.code == 1
    assert tiny.one_line(capsys.readouterr().err) == f"error: no stage {stage}; did you mean {nearest}?"


def test_a_stage_gets_the_flags_behind_its_name(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["seitpp"])
    with pytest.raises(SystemExit) as stopped:
        main(["pretrain", "--store", str(tmp_path / "nothing"), "--output_dir", str(tmp_path / "run")])
    assert stopped.value.code == 1
    assert "nothing is not a token store" in tiny.one_line(capsys.readouterr().err)


def test_a_stages_unknown_flag_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["seitpp"])
    with pytest.raises(SystemExit) as stopped:
        main(["finetune", "--layer-decay", "0.5"])
    assert stopped.value.code == 1
    expected = "error: unknown flag --layer-decay; did you mean --layer_decay?"
    assert tiny.one_line(capsys.readouterr().err) == expected


def test_ctrl_c_while_a_stage_is_imported_is_one_line_and_exit_code_130(capsys, monkeypatch, tmp_path):
    (tmp_path / "stage_cut_short.py").write_text("raise KeyboardInterrupt\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(STAGES, "cut-short", ("stage_cut_short", "stopped while it is imported"))
    monkeypatch.setattr(sys, "argv", ["seitpp"])
    with pytest.raises(SystemExit) as stopped:
        main(["cut-short"])
    assert stopped.value.code == 130
    assert tiny.one_line(capsys.readouterr().err) == "stopped before it began"


def test_the_installed_command_runs_without_anything_heavy():
    code = (
        "import sys; from seitpp.cli import main; main(['--help']); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'pandas', 'timm')))"
    )
    done = tiny.run("-c", code)
    assert done.returncode == 0
    assert "pretrain" in done.stdout
