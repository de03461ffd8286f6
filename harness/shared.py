r"""What those who write runs and those who read them share; nothing here takes long to import."""

import difflib

FINISHED, FAILED, CHECKPOINT = "summary.json", "failed.txt", "state.pt"  # files in a run's folder

# Options that cannot change a run's results, and are therefore no part of its identity.
NOT_RESULTS = ("output", "wandb", "fresh", "retry", "checkpoint_every", "name", "notes")


class Refused(ValueError):
    r"""A request that is refused before any work starts; its text is the one line that the user sees."""


def nearest(word: str, known: list[str], prefix: str = "") -> str:
    r"""A suggestion in parentheses, or nothing."""
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {prefix}{close[0]}?)" if close else ""
