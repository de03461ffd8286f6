"""Names and groups of runs at W&B: readable, and never one for two settings."""

import yaml

from hardmax.harness.config import key_of
from hardmax.harness.folders import fill_in_names
from helpers.commands import folders

QUIET = ["task=toy", "steps=2", "measure.every=0", "valid.every=0", "wandb.mode=disabled"]


def named(overrides, *, seed=1, searching=False, varied=None, config=None):
    """Name and group of a job with these overrides, all of which vary unless ``varied`` says which."""
    config = config or {"estimator": {}, "optimizer": {}}
    config = yaml.safe_load(yaml.safe_dump(config)) | {"seed": seed, "name": None}
    config["wandb"] = {"group": None, "tags": []}
    for override in overrides:
        *path, last = (key := override.partition("=")[0]).split(".")
        node = config
        for part in path:
            node = node.setdefault(part, {})
        node[last] = yaml.safe_load(override.removeprefix(f"{key}="))
    about = {"varied": [o.partition("=")[0] for o in overrides] if varied is None else varied, "searching": searching}
    fill_in_names(config, {"task": "toy", "estimator": "nvil", "seed": seed}, overrides, about)
    return config["name"], config["wandb"]["group"]


def test_runs_of_a_sweep_are_named_by_what_it_varies_and_grouped_over_seeds(command, tmp_path):
    sweep = ["-m", *QUIET, "estimator.temperature=0.5,1.0", "seed=1,2", "wandb.tags=[mine]"]
    assert command(*sweep)[0] == 0
    runs = folders(tmp_path)
    configs = [yaml.safe_load((run / "config.yaml").read_text()) for run in runs]
    for run, config in zip(runs, configs, strict=True):
        settings = f" temperature={config['estimator']['temperature']:g}"
        assert config["name"] == f"toy-gumbel_softmax-{run.name}{settings}"
        assert config["wandb"]["group"].startswith("toy-gumbel_softmax-")
        assert config["wandb"]["group"].endswith(settings)
        assert config["wandb"]["tags"] == ["mine", "toy", "gumbel_softmax"]
    groups = {config["wandb"]["group"]: config["estimator"]["temperature"] for config in configs}
    assert sorted(groups.values()) == [0.5, 1.0]


def test_no_two_settings_are_one_name_or_group():
    decays = [named([f"estimator.decay={decay}"]) for decay in ("0.99999", "0.999999", "1", "0.9999999999")]
    assert [name.partition(" ")[2] for name, _ in decays] == [
        "decay=0.99999",
        "decay=0.999999",
        "decay=1",
        "decay=0.9999999999",
    ]
    long = [named([f"estimator.notes={'a' * 200}{end}"]) for end in "bc"]
    one_word = [named([f"{key}=0.5"]) for key in ("optimizer.decay", "estimator.decay")]
    alone = [named([], config={"steps": steps, "estimator": {}, "optimizer": {}}) for steps in (100, 200)]
    aside = [named(["estimator.decay=0.5", f"steps={n}"], varied=["estimator.decay"]) for n in (100, 200)]
    for found in (decays, long, one_word, alone, aside):
        names, groups = zip(*found, strict=True)
        assert len(set(names)) == len(set(groups)) == len(found), found
        assert max(map(len, names + groups)) <= 128
        assert not {*names} & {*groups}


def test_seeds_are_one_group_and_so_are_the_trials_of_a_search():
    seeds = [named(["estimator.decay=0.5"], seed=seed) for seed in (1, 2)]
    trials = [named([f"estimator.decay={decay}"], searching=True) for decay in (0.5, 0.75)]
    for found in (seeds, trials):
        names, groups = zip(*found, strict=True)
        assert len(set(names)) == 2
        assert len(set(groups)) == 1
    decay = "estimator.decay"
    searches = [named([f"{decay}=0.5", f"steps={n}"], searching=True, varied=[decay]) for n in (1, 2)]
    assert searches[0][1] != searches[1][1]


def test_the_key_of_a_name_is_that_of_its_folder():
    assert key_of({"seed": 1, "estimator": {}, "optimizer": {}}) in named([])[0]
