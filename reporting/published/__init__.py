r"""Published figures, and those of runs beside them."""
