"""Files of a run that are cut off."""

import os

TINY = ["task=toy", "estimator=reinforce", "steps=24", "log_every=3", "valid.every=8", "measure.every=0"]
TINY += ["checkpoint_every=0", "wandb.mode=disabled"]
DIES_AFTER, LAST_SAVED = 15, 11


def cut(name, length):
    """Damage to a file: what is left is the first ``length`` bytes of it, or that share of them."""

    def damage(folder):
        size = (folder / name).stat().st_size
        os.truncate(folder / name, int(length * size) if isinstance(length, float) else length)

    return damage
