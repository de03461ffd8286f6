"""Networks of logic gates against truth tables, a network of booleans, and sums over all gates."""

import itertools

import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from hardmax.estimators import Exact, Reinforce, Softmax
from hardmax.tasks.data import Images, embedded_digits
from hardmax.tasks.gates import Gates, gates_as_sums, wires
from helpers.two_classes import of_two_classes

# The 16 gates as the paper's Table 1 has them, in its order.
REAL_VALUED = [
    lambda a, b: 0 * a,
    lambda a, b: a * b,
    lambda a, b: a - a * b,
    lambda a, b: a,
    lambda a, b: b - a * b,
    lambda a, b: b,
    lambda a, b: a + b - 2 * a * b,
    lambda a, b: a + b - a * b,
    lambda a, b: 1 - (a + b - a * b),
    lambda a, b: 1 - (a + b - 2 * a * b),
    lambda a, b: 1 - b,
    lambda a, b: 1 - b + a * b,
    lambda a, b: 1 - a,
    lambda a, b: 1 - a + a * b,
    lambda a, b: 1 - a * b,
    lambda a, b: 1 + 0 * a,
]


GREY = Images(
    *[torch.full((5, 4), 0.5)] * 3, "none", lambda: dict.fromkeys(("train", "valid", "test"), torch.arange(5))
)


def small(*widths):
    torch.manual_seed(0)
    return Gates(widths, data=of_two_classes()).double()


def of_gates(index):
    return one_hot(index, 16).double()


def test_the_gates_are_those_of_the_paper():
    terms = gates_as_sums()
    for a, b in [*itertools.product((0.0, 1.0), repeat=2), (0.3, 0.6), (0.9, 0.1)]:
        ours = terms @ torch.tensor([1.0, a, b, a * b])
        assert ours.tolist() == pytest.approx([gate(a, b) for gate in REAL_VALUED], abs=1e-6)
    logic = {1: lambda a, b: a and b, 6: lambda a, b: a != b, 7: lambda a, b: a or b, 13: lambda a, b: not a or b}
    for number, gate in logic.items():
        for a, b in itertools.product((False, True), repeat=2):
            assert terms[number] @ torch.tensor([1.0, a, b, a and b]) == float(gate(a, b))


@pytest.mark.parametrize("relaxed", [False, True])
def test_the_network_is_that_of_its_gates_one_by_one(relaxed):
    task = small(5, 7, 4)
    x, classes = task.measurement_batch(9)
    x = x.double()
    logits = torch.randn(3, 9, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    z = logits.softmax(-1) if relaxed else of_gates(logits.argmax(-1))
    cost = task.problem((x, classes)).objective(z)
    assert cost.shape == (3, 9)
    for s, n in itertools.product(range(3), range(9)):
        below, gate = x[n].tolist(), 0
        for layer, width in enumerate((5, 7, 4)):
            above = []
            for first, second in task.get_buffer(f"wires_{layer}").T.tolist():
                weights = z[s, n, gate].tolist()
                pairs = zip(weights, REAL_VALUED, strict=True)
                above.append(sum(w * f(below[first], below[second]) for w, f in pairs))
                gate += 1
            assert len(above) == width
            below = above
        scores = torch.tensor([(below[0] + below[1]) / 2, (below[2] + below[3]) / 2])
        assert float(cost[s, n]) == pytest.approx(float(cross_entropy(scores, classes[n])), rel=1e-5)


def test_the_expected_cost_is_the_sum_over_all_gates():
    task = small(2)
    x, classes = task.measurement_batch(5)
    problem = task.problem((x.double(), classes))
    ours, p = Exact()(problem.logits, problem.objective), task.logits.softmax(-1)
    costs = [
        p[0, i] * p[1, j] * problem.objective(of_gates(torch.tensor([i, j])).expand(1, 5, 2, 16))[0]
        for i, j in itertools.product(range(16), repeat=2)
    ]
    expected = sum(costs)
    assert torch.allclose(ours, expected)
    assert torch.allclose(*(torch.autograd.grad(c.mean(), task.logits)[0] for c in (ours, expected)), atol=1e-12)


def test_every_neuron_reads_two_outputs_and_every_output_is_read():
    torch.manual_seed(0)
    for inputs, neurons in ((6, 40), (40, 6), (2, 3)):
        read = wires(inputs, neurons)
        assert read.shape == (2, neurons)
        assert (read[0] != read[1]).all()
        assert (read >= 0).all()
        assert (read < inputs).all()
        counts = read[0].bincount(minlength=inputs)
        assert counts.max() - counts.min() <= 1
    assert {"wires_0", "wires_1"} <= small(4, 2).state_dict().keys(), "a resumed run goes on with its own network"


def test_figures():
    torch.manual_seed(0)
    task = Gates([30], data=embedded_digits("threshold"))
    found = task.evaluate("test")
    x, classes = task.data.held_out("test"), task.test_classes
    hard = one_hot(task.logits.argmax(-1), 16).float()
    problem = task.problem((x, classes))
    assert found["cost"] == pytest.approx(float(problem.objective(hard.expand(1, len(x), -1, -1)).mean()), rel=1e-5)
    right = [int(task.scores(hard, image).argmax()) == int(c) for image, c in zip(x, classes, strict=True)]
    assert found["accuracy"] == pytest.approx(sum(right) / len(x))
    assert found["gap"] == pytest.approx(found["soft_accuracy"] - found["accuracy"])
    with torch.no_grad():
        task.logits.copy_(1e4 * hard)
    assert task.evaluate("test") == pytest.approx(found | {"soft_accuracy": found["accuracy"], "gap": 0.0})
    for estimator in (Softmax(), Reinforce()):
        loss = estimator(problem.logits, problem.objective).mean()
        assert torch.autograd.grad(loss, task.logits, retain_graph=True)[0].isfinite().all()


def test_the_relaxed_network_learns():
    torch.manual_seed(0)
    task = Gates([100], data=embedded_digits("threshold"))
    optimizer, before = torch.optim.Adam(task.parameters(), lr=0.1), task.evaluate("valid")
    for step in range(50):
        problem = task.problem(task.batch(torch.arange(64) + 20 * step, torch.Generator()))
        optimizer.zero_grad()
        Softmax()(problem.logits, problem.objective).mean().backward()
        optimizer.step()
    after = task.evaluate("valid")
    assert before["soft_accuracy"] < 0.3
    assert after["soft_accuracy"] > 0.5


def test_enumerating_all_gates_is_refused_in_one_line(command):
    code, _, err = command("task=gates", "estimator=exact", "steps=2")
    assert code == 2
    assert "Exact: " in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"widths": [15]}, r"widths must end with a multiple of the 10 classes, got \[15\]"),
        ({"widths": []}, r"widths must end with a multiple of the 10 classes, got \[\]"),
        ({"widths": [0, 10]}, "each of widths must be an integer of at least 1, got 0"),
        ({"temperature": 0}, "temperature must be a number above 0, got 0"),
        ({"data": GREY}, "data must be binary images, these have grey levels"),
        ({"data": Images(*[torch.ones(5, 4)] * 3)}, "data must have labels, these images have none"),
    ],
)
def test_wrong_options_are_refused(options, line):
    with pytest.raises(ValueError, match=line):
        Gates(**options)
