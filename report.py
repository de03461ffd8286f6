"""Runs side by side: ``python report.py --help``."""

from hardmax.report import main

if __name__ == "__main__":
    main()
