r"""The commands: ``hardmax run | report | measure | certify``, and ``python run.py`` and so on in a checkout."""

import importlib
import sys

COMMANDS = {
    "run": ("hardmax.harness.app", "one experiment, or a sweep with -m"),
    "report": ("hardmax.report", "runs side by side: a page, tables and pictures"),
    "measure": ("hardmax.measure", "bias, variance and cost of estimators, without training"),
    "certify": ("hardmax.certify", "what is true of an estimator, or of anybody's sampler"),
}


def main() -> None:
    r"""Entry point of ``hardmax``."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        lines = [f"  hardmax {name:<9} {text}" for name, (_, text) in COMMANDS.items()]
        print("\n".join(["Gradients through categorical choices. Each command has a --help of its own:", "", *lines]))
        return
    if name == "--version":
        print(f"hardmax {importlib.import_module('hardmax').__version__}")
        return
    if name not in COMMANDS:
        print(f"error: {name} is no command of hardmax; there are: {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"hardmax {name}", *sys.argv[2:]]
    try:
        command = importlib.import_module(COMMANDS[name][0])
    except ModuleNotFoundError as error:
        if str(error.name).startswith("hardmax"):
            raise
        print(f"error: hardmax {name} needs {error.name}: pip install 'hardmax[harness]'", file=sys.stderr)
        sys.exit(2)
    sys.exit(command.main())


if __name__ == "__main__":
    main()
