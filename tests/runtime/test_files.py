"""Files are whole or not there."""

import pytest

from seitpp.runtime.files import read_json, replacing, write_json, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_under_its_name_when_it_is_whole(tmp_path):
    with replacing(tmp_path / "deep" / "file.txt") as temporary:
        temporary.write_text("half")
        assert not (tmp_path / "deep" / "file.txt").exists()
    assert (tmp_path / "deep" / "file.txt").read_text() == "half"
    assert names(tmp_path / "deep") == ["file.txt"]


def test_an_error_leaves_the_former_file_and_nothing_else(tmp_path):
    def fail():
        with replacing(tmp_path / "file.txt") as temporary:
            temporary.write_text("new")
            raise RuntimeError("power")

    (tmp_path / "file.txt").write_text("former")
    with pytest.raises(RuntimeError, match="power"):
        fail()
    assert names(tmp_path) == ["file.txt"]
    assert (tmp_path / "file.txt").read_text() == "former"


@pytest.mark.parametrize("fails", [False, True])
def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path, fails):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "model").write_text("old")
    try:
        with replacing(tmp_path / "weights") as temporary:
            temporary.mkdir()
            (temporary / "model").write_text("new")
            (temporary / "more").write_text("")
            if fails:
                raise RuntimeError("power")
    except RuntimeError:
        pass
    assert names(tmp_path) == ["weights"]
    assert names(tmp_path / "weights") == (["model"] if fails else ["model", "more"])
    assert (tmp_path / "weights" / "model").read_text() == ("old" if fails else "new")


def test_json_and_text_come_back(tmp_path):
    write_json(tmp_path / "a.json", {"ü": [1, None, 0.1]})
    write_text(tmp_path / "b.txt", "two\nlines\n")
    assert read_json(tmp_path / "a.json") == {"ü": [1, None, 0.1]}
    assert (tmp_path / "b.txt").read_text() == "two\nlines\n"
