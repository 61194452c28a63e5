"""Tables that a run leaves in its folder beside results.csv, with the types of their columns."""

# pyright: reportReturnType=false
# The stubs of pandas do not know that a list of columns gives a table.

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from seitpp.report.found_runs import reading
from seitpp.runtime.tables import read_table


def run_table(path: Path, texts: Sequence[str], numbers: Sequence[str]) -> pd.DataFrame:
    """Some columns of a CSV file, `texts` first, whatever else it has.

    Args:
        path: the file.
        texts: columns that hold texts.
        numbers: columns that hold numbers; an empty field is none (NaN).
    Raises: UserError if it is missing, lacks a column, or a number is none.
    """
    table = read_table(path, [*texts, *numbers]).reset_index(drop=True)
    with reading(path):
        for name in numbers:
            table[name] = table[name].replace("", "nan").astype("float64")
    return table[[*texts, *numbers]]
