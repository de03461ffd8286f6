"""Puts the table of a report into a page, between its marks: ``python docs/scripts/fill_table.py PAGE TABLE``."""

import sys
from pathlib import Path

START, END = "<!-- table -->\n", "<!-- end of table -->\n"

page, table = map(Path, sys.argv[1:])
before, _, rest = page.read_text("utf-8").partition(START)
_, _, after = rest.partition(END)
page.write_text(f"{before}{START}\n{table.read_text('utf-8')}\n{END}{after}", "utf-8")
