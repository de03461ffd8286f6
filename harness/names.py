r"""Estimators by the other names that users look for."""

from functools import cache

from omegaconf import OmegaConf

from hardmax.paths import CONFIGS

from .shared import nearest, simplified
from .sources import located


@cache
def meanings() -> dict[str, tuple[str, list[str]]]:
    r"""The project's own estimator, and the settings of it, that every name means; names are :func:`simplified`."""
    found = {}
    for path in sorted((CONFIGS / "estimator").glob("*.yaml")):
        made = located(OmegaConf.load(path)._target_)
        for name, settings in [(path.stem, []), (made.__name__, []), *made.other_names().items()]:
            found[simplified(name)] = (path.stem, settings)
    return found


def meant(name: str, known: list[str], rival: bool = False) -> str:
    r"""What estimator ``name`` may mean, in parentheses, as overrides or an entry of ``measure.rivals``; or nothing."""
    if (found := meanings().get(simplified(name))) is None:
        return nearest(name, known)
    estimator, settings = found
    text = " ".join([f"estimator={estimator}", *(f"estimator.{setting}" for setting in settings)])
    if rival:
        inner = ",".join(settings).replace("=", ":")
        text = f"{{{estimator}:{{{inner}}}}}" if settings else estimator
    return f" (did you mean {text}?)"
