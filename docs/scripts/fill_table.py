"""Puts the table of a report into a page, between its marks: ``python docs/scripts/fill_table.py PAGE TABLE``.

Without its last column, the training time, which on machines that do other work too means nothing.
"""

import sys
from pathlib import Path

START, END = "<!-- table -->\n", "<!-- end of table -->\n"

page, table = map(Path, sys.argv[1:])
before, _, rest = page.read_text("utf-8").partition(START)
_, _, after = rest.partition(END)
rows = "".join(f"{row.rstrip(' |').rpartition(' | ')[0]} |\n" for row in table.read_text("utf-8").splitlines() if row)
page.write_text(f"{before}{START}\n{rows}\n{END}{after}", "utf-8")
