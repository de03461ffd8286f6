r"""Tables as CSV files that people open in a spreadsheet."""

import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what begins with one is run by a spreadsheet


def as_csv(table: pd.DataFrame) -> str:
    r"""A table as CSV, in which no text is taken for a formula by a spreadsheet."""
    return table.map(as_cell).rename(columns=as_cell).to_csv(index=False)


def as_cell(content: object) -> object:
    r"""A text that a spreadsheet shows as it is: one that it would run begins with an apostrophe."""
    if not isinstance(content, str) or not content.startswith(FORMULA):
        return content
    try:
        float(content)
    except ValueError:
        return f"'{content}"
    return content
