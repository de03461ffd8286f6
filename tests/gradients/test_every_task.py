"""What every task owes to measuring: a truth that is one, draws of the same objective, and training as it was."""

import pytest
import torch

from hardmax.estimators import LocalExpectation
from hardmax.gradients import WHERE, forked_random, truth, truth_of
from hardmax.harness.train import train
from helpers.cases import in_part
from helpers.commands import ROOT, started

AUTOENCODER = ["task.encoder_widths=[8]", "task.decoder_widths=[8]", "task.bound_samples=1"]
TWO_OF_THREE = ["task.variables=2", "task.categories=3"]
# Options of each task, at a size at which its gradient is known exactly.
TASKS = {
    "addition": ["task.widths=[8]"],
    "bandit": ["task.arms=4", "task.features=3", "task.widths=[8]"],
    "dvae": [*AUTOENCODER, *TWO_OF_THREE, "task.layers=2", "task.prior=learned"],
    "episode": ["task.environment.limit=20"],
    "gates": ["task.widths=[2]", "data._target_=helpers.two_classes.of_two_classes", "~data.binarisation"],
    "generation": ["task.length=4", "task.vocabulary=3", "task.width=4"],
    "listops": ["task.tokens=5", "task.width=8"],
    "mixture": ["task.components=4", "task.points=20", "task.widths=[8]"],
    "polynomial": TWO_OF_THREE,
    "quadratic": ["task.toy=kool"],
    "quadratic_form": TWO_OF_THREE,
    "routing": ["task.experts=4", "task.router_widths=[8]"],
    "semi_supervised": ["task.widths=[8]", "task.style=3", "task.bound_samples=1"],
    "structured": [*TWO_OF_THREE, "task.layers=3", "task.bound_samples=1"],
    "text": [*AUTOENCODER, *TWO_OF_THREE],
    "toy": ["task.categories=4"],
    "vq": ["task.encoder_widths=[8]", "task.decoder_widths=[8]", "task.dimensions=3", *TWO_OF_THREE],
}
BLACK_BOXES = ("addition", "episode")  # of their costs there is no derivative
BIASED = {task: "reinforce" if task in BLACK_BOXES else "gumbel_softmax" for task in TASKS}  # else not biased


def of_task(task, *options):
    assert sorted(TASKS) == sorted(p.stem for p in (ROOT / "configs/task").glob("*.yaml"))
    return started(f"task={task}", *TASKS[task], "batch_size=5", "wandb.mode=disabled", *options)


@pytest.mark.parametrize("task", in_part(TASKS, 3))
def test_exact_and_local_expectation_measure_no_bias(task):
    """Beside an estimator whose relaxed layers would be biased: each is nested in itself."""
    rivals = "measure.rivals=[exact,local_expectation]"
    state, _ = of_task(task, f"estimator={BIASED[task]}", rivals, "measure.draws=100", "measure.reference_draws=0")
    found, _ = state.measuring.measure_all(0)
    assert found["truth/exact"] == 0
    places = ["encoder"] if state.task.parameters_only else WHERE
    for where in places:
        size = found[f"{where}/true_norm"] ** 2
        exact = {name: found[f"rivals/exact/{where}/{name}"] for name in ("bias2", "mse", "cosine", "variance")}
        if state.task.parameters_only:  # it enumerates word by word, but the cost of another word is one draw
            assert abs(exact["bias2"]) < 4 * found[f"rivals/exact/{where}/bias2_error"] + 1e-6 * size
        else:
            cosine = exact.pop("cosine")
            assert exact == pytest.approx({"bias2": 0, "mse": 0, "variance": 0}, abs=1e-5 * max(size, 1)), where
            if (task, where) != ("episode", "logits"):  # where steps after an episode's end have no gradient
                assert cosine == pytest.approx(1, abs=1e-5 * max(size, 1)), where
        bias2, error = (found[f"rivals/local_expectation/{where}/{name}"] for name in ("bias2", "bias2_error"))
        assert abs(bias2) < 4 * error + 1e-6 * size, f"{where}: {bias2} ± {error} beside {size}"


@pytest.mark.parametrize("task", in_part(TASKS, 3))
def test_truths_of_two_streams_agree(task, monkeypatch):
    """Exact ones to the last bit; references with each other and with the exact one, within their noise."""
    state, _ = of_task(task, f"estimator={BIASED[task]}", "measure.every=0")
    model = state.task
    problem = model.problem(state.measuring.batch)

    def truths(*reference):
        found = []
        for seed in range(2):
            with forked_random(torch.device("cpu"), seed):
                found.append(truth_of(model, problem, *reference))
        return found

    a, b = truths()
    assert all(torch.equal(a[where].mean, b[where].mean) for where in a)
    monkeypatch.setattr(truth, "ENUMERATED", 1)
    monkeypatch.setattr(type(model), "expected_cost", lambda *_: None)
    problem.expected_cost = None
    assert truth_of(model, problem) is None
    first, second = truths("local_expectation", LocalExpectation(), 100)
    for one, other in ((a, first), (first, second)):
        for where in one:
            off = (one[where].mean[0] - other[where].mean[0]).square().sum()
            noise = (one[where].noise[0] + other[where].noise[0]).sum()
            assert off < 4 * noise + 1e-6 * one[where].mean[0].square().sum(), where


LEARNING = ("reinforce", "nvil")
# One of them with each task, in turns, and the other.
IN_TURNS = [(task, LEARNING[(n + k) % 2]) for n, task in enumerate(TASKS) for k in range(2)]


@pytest.mark.parametrize(("task", "estimator"), in_part(IN_TURNS, 9))
def test_measuring_leaves_rows_and_state_as_they_are(task, estimator):
    """Rows are the same bytes with rivals and a reference as without, and so is what an estimator has taken in."""
    short = [f"estimator={estimator}", "steps=4", "log_every=1", "valid.every=2", "measure.draws=2", "measure.every=2"]
    third = "arsm" if task in BLACK_BOXES else "relax"
    with_others = [f"measure.rivals=[reinforce,nvil,{third}]", "measure.reference_draws=4", "measure.batches=2"]
    with_others += ["measure.rival_steps=2"]
    results = []
    for options in (["measure.every=0"], ["measure.reference_draws=0"], with_others):
        state, cfg = of_task(task, *short, *options)
        rows = []
        train(state, cfg, lambda step, row, _: rows.append((step, row)))
        kept = [{k: v for k, v in row.items() if not k.startswith("gradient/")} for _, row in rows]
        results.append((kept, [*state.task.state_dict().items(), *state.estimator.state_dict().items()]))
    for rows, parts in results[1:]:
        assert rows == results[0][0]
        assert all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in zip(parts, results[0][1], strict=True))
