"""What the page says of attacked images."""

import pytest

from report_runs import MTM, SCRATCH, measured, write_run
from seitpp.report.adversarial import adversarial_sections, attack_in_words
from seitpp.report.found_runs import find_runs


@pytest.fixture
def section(tmp_path):
    rows = []
    for init, clean, attacked in (("mtm", [0.6, 0.8], [0.1, 0.2]), ("scratch", [0.5, 0.7], [0.2, 0.4])):
        rows += measured(init, clean)
        rows += measured(init, attacked, shift="pgd10_eps4")
        rows += measured(init, [0.25, 0.35], shift="pgd10_eps4", metric="tokens_changed")
    write_run(tmp_path / "runs" / "attack", "downstream.adversarial", summary={}, results=rows)
    (section,) = adversarial_sections(find_runs([tmp_path / "runs"]))
    return section


def test_a_row_an_attack_and_a_column_a_classifier(section):
    accuracy, changed = section["tables"]
    assert set(accuracy.columns[1:]) == {MTM, SCRATCH}
    assert [name for name, _ in accuracy.rows] == ["clean images", "PGD, 10 steps, 4/255"]
    found = {name: dict(zip(accuracy.columns[1:], cells, strict=True)) for name, cells in accuracy.rows}
    assert found["clean images"][MTM].value == pytest.approx(70)
    assert found["clean images"][MTM].best
    assert not found["PGD, 10 steps, 4/255"][MTM].best
    assert found["PGD, 10 steps, 4/255"][SCRATCH].text == "30.0 ± 14.1"
    assert [cell.value for cell in changed.rows[0][1]] == pytest.approx([30, 30])


def test_names_of_attacks_are_made_of_their_identifiers():
    names = [attack_in_words(each) for each in ("", "fgsm_eps1", "random_eps16", "pgd5_eps2", "fog")]
    assert names == ["clean images", "FGSM, 1/255", "random changes, 16/255", "PGD, 5 steps, 2/255", "fog"]
