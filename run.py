"""One experiment, or a sweep with -m: ``python run.py --help``."""

from hardmax.harness.app import main

if __name__ == "__main__":
    main()
