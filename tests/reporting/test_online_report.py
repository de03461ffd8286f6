"""A report at Weights & Biases about a sweep, read back with W&B's own library for reports."""

import json

import pytest

from helpers.commands import folders
from helpers.offline import kept_offline

wr = pytest.importorskip("wandb_workspaces.reports.v2")
internal = pytest.importorskip("wandb_workspaces.reports.v2.internal")

TOY = ["task=toy", "steps=4", "log_every=1", "measure.every=2", "measure.draws=4", "valid.every=2"]
SWEEP = ["-m", *TOY, "estimator=arsm,gumbel_softmax", "seed=1,2", "wandb.mode=disabled"]


def sent(where):
    """Lets runs be known at W&B, as those are that were sent there."""
    for number, folder in enumerate(folders(where)):
        (folder / "wandb.id").touch()
        if not (folder / "wandb.id").read_text():
            (folder / "wandb.id").write_text(f"0123456{number}")


def known_at_wandb(folder):
    """Keys of rows, of the config, and of the final figures, with dots."""
    rows, config, _, summary = kept_offline(folder)

    def walk(node, prefix):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from walk(value, f"{prefix}{key}.") if isinstance(value, dict) else ()

    return {key for row in rows for key in row}, {*walk(config, "")}, {*walk(summary, "")}


def in_config(backend_name):
    """The key of a config that W&B's own name of a place in it stands for."""
    first, value, *rest = backend_name.split(".")
    assert value == "value"
    return ".".join([first, *rest])


def read_back(path):
    """The report in a file, read by W&B's library: none of its parts is one that this does not know."""
    report = wr.Report._from_model(internal.ReportViewspec.model_validate_json(path.read_text()))
    assert not [block for block in report.blocks if type(block).__name__.startswith("Unknown")]
    return report


def test_a_sweep_has_a_report_whose_names_are_those_that_its_runs_have_at_wandb(
    command, reported, server, tmp_path, monkeypatch
):
    assert command(*TOY, "estimator=gumbel_softmax", "seed=1", "wandb.mode=offline")[0] == 0
    (offline,) = folders(tmp_path)
    logged, config, summary = known_at_wandb(offline)
    assert command(*SWEEP)[0] == 0
    sent(tmp_path)
    code, out, err = reported("output", "--wandb")
    assert (code, out) == (0, "output/report/wandb_report.json\n"), err
    assert "WANDB_MODE=offline: the report is a file alone" in err
    report = read_back(tmp_path / "output/report/wandb_report.json")
    (grid,) = (block for block in report.blocks if isinstance(block, wr.PanelGrid))
    (runs,) = grid._to_model().metadata.run_sets
    (condition,) = runs.filters["filters"]
    assert (condition["key"], condition["op"]) == ({"section": "run", "name": "name"}, "IN")
    assert {*condition["value"]} == {(folder / "wandb.id").read_text() for folder in folders(tmp_path)}
    assert [key.section for key in runs.grouping] == ["config"]
    assert [in_config(key.name) for key in runs.grouping] == ["choices.estimator"]
    columns = runs.run_feed.column_order
    assert {in_config(c.partition(":")[2]) for c in columns if c.startswith("config:")} <= config
    assert {c.partition(":")[2] for c in columns if c.startswith("summary:")} <= summary
    assert {"config:choices.value.estimator", "config:choices.value.seed", "summary:valid/gap.min"} <= {*columns}
    by_kind = {kind: [p for p in grid.panels if isinstance(p, kind)] for kind in (wr.LinePlot, wr.BarPlot)}
    (scatter,) = (panel for panel in grid.panels if isinstance(panel, wr.ScatterPlot))
    assert len(grid.panels) == sum(map(len, by_kind.values())) + 1
    assert {scatter.x.name, scatter.y.name} <= summary
    drawn = {
        kind: {m.name for p in own for m in (p.y if kind is wr.LinePlot else p.metrics)}
        for kind, own in by_kind.items()
    }
    assert drawn[wr.LinePlot] >= {"train/loss", "valid/gap", "gradient/encoder/variance"}
    assert drawn[wr.LinePlot] <= logged
    assert {"test/gap", "test/cost"} == drawn[wr.BarPlot] <= summary
    for panel in [*by_kind[wr.LinePlot], *by_kind[wr.BarPlot]]:
        assert (panel.groupby_aggfunc, panel.groupby_rangefunc) == ("mean", "stderr")
        assert panel.groupby == wr.Config("choices.estimator")
    assert {panel.x.name for panel in by_kind[wr.LinePlot]} == {"step"}
    boxes = [(p.layout.x, p.layout.y) for p in grid.panels]
    assert len({*boxes}) == len(boxes), "one lies upon another"
    monkeypatch.delenv("WANDB_MODE")
    code, _, err = reported("output", "--wandb")
    (line,) = (line for line in err.splitlines() if not line.startswith("wandb: "))
    assert (code, "'tester/hardmax' not found" in line) == (2, True), "nothing has been sent yet"
    server.runs["some"] = {}
    code, out, err = reported("output", "--wandb")
    assert code == 0, err
    address, _, path = out.splitlines()
    assert path == "output/report/wandb_report.json"
    report = wr.Report.from_url(address)
    assert (report.entity, report.project, report.title) == ("tester", "hardmax", "hardmax: toy")
    assert json.loads((tmp_path / path).read_text())["spec"] == json.loads(server.reports[report.id]["spec"])
    assert report.blocks[-1].runsets[0].project == "hardmax"


def test_settings_that_were_swept_are_groups_and_columns(command, reported, tmp_path):
    assert command(*SWEEP, "estimator=gumbel_softmax", "seed=1", "optimizer.lr=0.1,0.2")[0] == 0
    sent(tmp_path)
    assert command(*TOY, "wandb.mode=disabled", "seed=7")[0] == 0
    code, _, err = reported("output", "--wandb", "--to", "here", "--only", "estimator=gumbel_softmax")
    assert code == 0
    assert "left out, not at W&B: output/toy/gumbel_softmax/7-" in err
    grid = read_back(tmp_path / "here/wandb_report.json").blocks[-1]
    (runs,) = grid._to_model().metadata.run_sets
    assert [in_config(key.name) for key in runs.grouping] == ["choices.estimator", "optimizer.lr"]
    assert "config:optimizer.value.lr" in runs.run_feed.column_order
    assert {panel.groupby for panel in grid.panels if isinstance(panel, wr.LinePlot)} == {None}, "the table's"
    assert len(runs.filters["filters"][0]["value"]) == 2


def test_what_no_report_can_be_made_of_is_said_in_one_line(command, reported, tmp_path, monkeypatch):
    for arguments, line in [
        (["--wandb", "--tune"], "--wandb goes with --only, --by and --to alone"),
        (["--wandb", "--upload"], "--wandb goes with --only, --by and --to alone"),
        (["--wandb"], "no finished run below output that W&B knows"),
    ]:
        (tmp_path / "output").mkdir(exist_ok=True)
        assert reported("output", *arguments) == (2, "", f"error: {line}\n")
    assert command("-m", *TOY, "seed=1", "wandb.project=a,b", "wandb.mode=disabled", "fresh=true")[0] == 0
    code, _, err = reported("output", "--wandb")
    assert (code, err.endswith("that W&B knows; report.py output --upload sends them\n")) == (2, True)
    for folder in folders(tmp_path):
        (folder / "wandb.id").write_text(folder.name)
    code, _, err = reported("output", "--wandb")
    line = "--wandb takes runs of one wandb.project, got a, b: --only wandb.project=a chooses"
    assert (code, err) == (2, f"error: {line}\n")
    find = __import__("importlib").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None if name == "wandb_workspaces" else find(name))
    code, _, err = reported("output", "--wandb")
    assert (code, err) == (2, "error: --wandb needs an extra: pip install -e '.[wandb]'\n")
