"""Estimators side by side, without training: ``python measure.py --help``."""

from hardmax.measure import main

if __name__ == "__main__":
    main()
