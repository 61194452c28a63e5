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
    assert tiny.one_line(capsys.readouterr().out).endswith(
        f"{tmp_path / 'page.html'}, {tmp_path / 'results.csv'}, {tmp_path / 'tables'}"
    )


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


def test_files_that_no_report_wrote_are_refused_and_stay(demo, tmp_path, capsys):
    home = tmp_path / "home"
    home.mkdir()
    for name, what in (("report.html", "a report"), ("results.csv", "a table of results")):
        (home / name).write_text("<title>mine</title>")
        line = one_line_error(capsys, demo, "--out", home / "report.html")
        assert f"{home / name} is there already and is not {what} of seitpp: give --out another folder" in line
        assert [path.name for path in home.iterdir()] == [name]
        (home / name).rename(tmp_path / f"{name}.txt")
    cli([str(demo), "--out", str(home / "report.html")])
    cli([str(demo), "--out", str(home / "report.html")])  # its own


def test_a_run_that_is_not_reported_keeps_its_results(demo, capsys):
    with (demo / "finetune" / "config.yaml").open("a") as file:
        file.write("output_dir: runs/finetune\nresume: auto\nseed: 0\n")
    before = (demo / "finetune" / "results.csv").read_bytes()
    line = one_line_error(capsys, demo / "probe", "--out", demo / "finetune" / "report.html")
    assert "whose results.csv would be replaced" in line
    assert (demo / "finetune" / "results.csv").read_bytes() == before


def test_a_link_is_followed_and_a_url_is_refused(demo, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.html").symlink_to(tmp_path / "disk" / "page.html")
    cli([str(demo / "probe"), "--out", "link.html"])
    assert (tmp_path / "link.html").is_symlink()
    assert {path.name for path in (tmp_path / "disk").iterdir()} == {"page.html", "results.csv", "tables"}
    assert "is a URL" in one_line_error(capsys, demo / "probe", "--out", "s3://bucket/page.html")
    assert not (tmp_path / "s3:").exists()
