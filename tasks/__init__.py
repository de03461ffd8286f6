r"""Tasks that estimators are compared on: one file each. See :mod:`tasks.base` for the contract."""
