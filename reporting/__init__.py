r"""What ``report.py`` drives: run folders become runs, runs groups, groups results, these tables, charts, a page."""
