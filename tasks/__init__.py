r"""Tasks that estimators are compared on: one file each. See :mod:`hardmax.tasks.base` for the contract."""
