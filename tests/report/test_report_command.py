"""`seitpp report` as a command: what it prints, and one line for whatever is wrong."""

import pytest

import tiny
from seitpp.report.report import cli


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


def test_the_command_says_what_it_wrote(demo, tmp_path, capsys):
    cli([str(demo / "probe"), "--out", str(tmp_path / "page.html")])
    assert tiny.one_line(capsys.readouterr().out).endswith(f"{tmp_path / 'page.html'}, {tmp_path / 'results.csv'}")


def test_results_of_an_older_version_are_named(demo, capsys):
    (demo / "finetune" / "results.csv").write_text("task,method\npets,MTM\n")
    line = one_line_error(capsys, demo, "--out", demo.parent / "report.html")
    assert f"{demo / 'finetune' / 'results.csv'} " in line
    assert "dataset" in line


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mtm/config.yaml", "stage: [unclosed"),
        ("mtm/summary.json", "{"),
        ("mtm/summary.json", '{"eval_cross_entropy": "low"}'),
        ("mtm/metrics.jsonl", "no json\n"),
        ("mtm/completions.png", "no picture"),
        ("tokenadapt/agreement.csv", "a,b\n1,2\n"),
        ("store/train/store.json", "{}"),
        ("commands.jsonl", '{"stage": "no command"}\n'),
    ],
)
def test_a_broken_file_is_named(demo, capsys, name, content):
    (demo / name).write_text(content)
    line = one_line_error(capsys, demo, "--out", demo.parent / "report.html")
    assert str(demo / name) in line
    assert "unexpected" not in line


def test_the_report_does_not_wait_for_torch(demo, tmp_path):
    program = (
        "import sys; from seitpp.report.report import write_report; write_report(sys.argv[1:2], sys.argv[2]); "
        "sys.exit('torch' in sys.modules)"
    )
    done = tiny.run("-c", program, demo / "mtm", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
