"""A table is the same rows on the page, as CSV, as Markdown and as LaTeX."""

import csv
import io
import json
import re

import pytest

from report_runs import report
from seitpp.report.report import write_report
from seitpp.report.tables import Cell, Table, as_csv, as_latex, as_markdown, latex, slug, table_names
from seitpp.runtime.errors import UserError

TABLE = Table(
    name="pets",
    caption="Accuracy on cats & dogs, %",
    columns=("start", "fine-tuning", "paper"),
    rows=[
        ("from scratch", [Cell(text="50.0", value=50.04), Cell(text="74.0", value=74)]),
        ("MTM | both", [Cell(text="54.1 ± 1.0", value=54.12, std=0.98, note="\u2212 4.1", best=True), None]),
    ],
    reported=(1,),
)


def test_csv_has_numbers_deviations_and_notes_in_columns_of_their_own():
    assert as_csv(TABLE).splitlines() == [
        'start,fine-tuning,"fine-tuning, std","fine-tuning, note",paper (reported)',
        "from scratch,50.04,,,74",
        "MTM | both,54.12,0.98,\u2212 4.1,",
    ]


def test_markdown_shows_what_the_page_shows():
    assert as_markdown(TABLE).split("\n") == [
        "**Accuracy on cats & dogs, %**",
        "",
        "| start | fine-tuning | paper (reported) |",
        "|---|---:|---:|",
        "| from scratch | 50.0 | 74.0 |",
        "| MTM \\| both | **54.1 ± 1.0** (\u2212 4.1) | \u2013 |",
        "",
    ]


def test_latex_has_the_rules_of_booktabs_and_an_escaped_caption():
    assert as_latex(TABLE).split("\n") == [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        r"  \caption{Accuracy on cats \& dogs, \%}",
        r"  \label{tab:pets}",
        r"  \begin{tabular}{lrr}",
        r"    \toprule",
        r"    start & fine-tuning & paper (reported) \\",
        r"    \midrule",
        r"    from scratch & 50.0 & 74.0 \\",
        r"    MTM \textbar{} both & \textbf{54.1 $\pm$ 1.0} ($-$ 4.1) & -- \\",
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
        "",
    ]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("50 %", r"50 \%"),
        ("a_b & c#d $1", r"a\_b \& c\#d \$1"),
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("~ ^ < >", r"\textasciitilde{} \textasciicircum{} \textless{} \textgreater{}"),
        ("[2 mm]", "{[}2 mm{]}"),  # after the end of a row it would be a distance
        ("16 \u00d7 16 \u2192 8", r"16 $\times$ 16 $\to$ 8"),
        ("a\nb", "a b"),
    ],
)
def test_nothing_in_a_text_is_a_command_of_latex(text, written):
    assert latex(text) == written


def test_tables_of_one_name_get_files_of_their_own():
    tables = [Table(name=name, caption="", columns=("a",), rows=[]) for name in ("A b", "a-b", "a-b-2", "\u00e9")]
    assert [table_names(tables)[id(table)] for table in tables] == ["a-b", "a-b-2", "a-b-2-2", "table"]
    assert len(slug("x" * 500)) == 80


def numbers(text):
    """The numbers of a table's cells, of any of its forms."""
    text = text.replace("\u2212", "-").replace("$-$", "-").replace(",", "")
    return [float(each) for each in re.findall(r"-?\d+(?:\.\d+)?", text)]


def test_every_table_of_the_page_is_there_in_three_forms_with_the_same_rows(demo):
    page = report(demo)
    folder = demo.parent / "page" / "tables"
    names = re.findall(r'<div class="table" id="table-([^"]*)">', page.source)
    assert page.source.count("<table") == len(names)
    assert {f"{name}.{form}" for name in names for form in ("csv", "md", "tex")} == {
        path.name for path in folder.iterdir() if path.suffix != ".json"
    }
    assert {"results-pets", "storage-store-train", "views-psnr-tokenadapt", "reported-robustness"} <= set(names)
    for name in names:
        part = page.source[page.source.index(f'id="table-{name}"') :]
        shown = re.findall(r"<td[^>]*>(.*?)</td>", part[part.index("<tbody>") : part.index("</tbody>")])
        shown = [re.sub("<.*?>", " ", cell) for cell in shown]
        markdown = (folder / f"{name}.md").read_text(encoding="utf-8").split("\n")[4:-1]
        latex_rows = (folder / f"{name}.tex").read_text(encoding="utf-8").split("\\midrule")[1:]
        rows = list(csv.DictReader(io.StringIO((folder / f"{name}.csv").read_text(encoding="utf-8"))))
        cells = [cell for line in markdown for cell in re.split(r"(?<!\\)\|", line)[2:-1]]
        assert numbers(" ".join(cells)) == numbers(" ".join(shown)), name
        in_latex = [cell for line in "".join(latex_rows).split("\n") if "&" in line for cell in line.split(" & ")[1:]]
        assert numbers(" ".join(in_latex)) == numbers(" ".join(shown)), name
        assert len(rows) == len(markdown), name
        for row, line in zip(rows, markdown, strict=True):  # the CSV has more digits
            first = re.split(r"(?<!\\)\|", line)[2]
            text = numbers(first)[:1]
            own = list(row.values())[1]
            if text and re.fullmatch(r"-?[\d.]+", own) and not re.search("[kMG]B", first):
                assert abs(float(own) - text[0]) <= 0.5, (name, line)


def test_a_report_replaces_and_removes_its_own_tables_alone(demo, tmp_path):
    page, tables = tmp_path / "page" / "report.html", tmp_path / "page" / "tables"
    write_report([demo], page)
    assert (tables / "views-psnr-tokenadapt.csv").exists()
    (tables / "mine.csv").write_text("of mine")
    write_report([demo / "probe"], page)
    left = {path.name for path in tables.iterdir() if path.name[0] != "."}
    assert {"mine.csv", "results-pets.csv", "tables.json"} <= left
    assert "views-psnr-tokenadapt.csv" not in left
    assert (tables / "mine.csv").read_text() == "of mine"


def test_a_folder_or_file_that_no_report_made_is_refused_before_anything_is_written(demo, tmp_path):
    home = tmp_path / "page"
    (home / "tables").mkdir(parents=True)
    (home / "tables" / "results-pets.csv").write_text("of mine")
    with pytest.raises(UserError, match=r"tables holds results-pets\.csv and is not a report's folder"):
        write_report([demo], home / "report.html")
    (home / "tables" / "tables.json").write_text(json.dumps({"these are": "tables of a seitpp report", "files": []}))
    with pytest.raises(UserError, match=r"results-pets\.csv is there already and is not a report's table"):
        write_report([demo], home / "report.html")
    assert [path.name for path in home.iterdir()] == ["tables"]
    assert (home / "tables" / "results-pets.csv").read_text() == "of mine"


def test_a_list_of_tables_that_names_files_elsewhere_removes_nothing(demo, tmp_path):
    home = tmp_path / "page"
    (home / "tables").mkdir(parents=True)
    (home / "mine.csv").write_text("of mine")
    files = {"these are": "tables of a seitpp report", "files": ["../mine.csv"]}
    (home / "tables" / "tables.json").write_text(json.dumps(files))
    with pytest.raises(UserError, match="is not a report's folder"):
        write_report([demo], home / "report.html")
    assert (home / "mine.csv").exists()
