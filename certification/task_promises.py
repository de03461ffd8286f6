r"""The checks of what a task gives beside its problems: batches, figures, examples; none of them changes anything."""

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils import _pytree as trees

from hardmax.gradients.enumeration import Failed, require
from hardmax.tasks.base import Task, wrong_figures

from .task_problems import (
    EXAMPLES,
    are_equal,
    at_random_parameters,
    batch_norms,
    changes,
    draws,
    in_mode_for,
    noting_streams,
    numbers_of,
    problem_of,
    selected,
    some_problem,
    state_of,
    training_batch,
)

LOOKED_AT = 2000  # training examples at most among which measurement examples are looked for
MEASURED = 50  # measurement examples that are
MOST_ALIKE = 0.5  # share of them that may be alike by chance


def check_declarations(task: Task) -> None:
    r"""What the class says of itself: numbers of examples and nested estimators, the divisor, the figures."""
    require(
        task.examples is None or (isinstance(task.examples, int) and task.examples >= 1),
        f"examples must be the number of training examples, or None if every batch is the same, got {task.examples!r}",
    )
    require(
        isinstance(task.nats_divisor, int | float) and 0 < task.nats_divisor < math.inf,
        f"nats_divisor must be a number above 0, got {task.nats_divisor!r}",
    )
    require(
        isinstance(task.nested, int) and task.nested >= 0,
        f"nested must be an integer of at least 0, got {task.nested!r}",
    )
    wrong = wrong_figures(task.figures)
    require(not wrong, wrong)


def check_evaluation(task: Task) -> None:
    r"""``evaluate`` gives the figures that are declared, finite, the same again, and changes nothing."""
    with at_random_parameters(task):
        before, training = state_of(task), training_batch(task)
        found: dict[str, dict] = {}
        for n, split in enumerate(("valid", "test", "valid")):
            torch.default_generator.manual_seed(1)
            streams: list[str] = []
            with noting_streams(streams), noting_training_layers(task) as left:
                now = task.evaluate(split)
            require(
                not left,
                f"evaluate leaves {', '.join(sorted(left))} in training mode: eval() before it, and train() after",
            )
            require(isinstance(now, dict), f"evaluate({split!r}) must return figures by name, got {type(now).__name__}")
            changed = changes(task, before)
            require(not changed, f"evaluate changes {', '.join(changed)}: training would go on from something else")
            others = [stream for stream in streams if not stream.startswith("PyTorch")]
            require(not others, f"evaluate uses {' and '.join(others)}, which a run does not seed: take PyTorch's")
            if n < 2:
                check_figures_are_declared(task, split, now)
            else:
                require(
                    now == found[split],
                    f"evaluate({split!r}) gives other figures from the same random numbers: it must depend on nothing "
                    "but the parameters, the data and PyTorch's global random numbers",
                )
            found[split] = now
        require(task.training, "evaluate leaves the task in evaluation mode: call train() at its end")
        require(torch.is_grad_enabled(), "evaluate leaves gradients disabled: decorate it with torch.no_grad()")
        require(all(p.grad is None for p in task.parameters()), "evaluate leaves gradients in parameters")
        require(
            are_equal(training, training_batch(task)),
            "after evaluate, batch gives other examples for the same generator",
        )


@contextlib.contextmanager
def noting_training_layers(task: Task) -> Iterator[set[str]]:
    r"""Within it, notes the names of layers that do something else in training, and are called so."""
    found: set[str] = set()
    kinds = (torch.nn.modules.dropout._DropoutNd, torch.nn.modules.batchnorm._BatchNorm)

    def note(name: str) -> Callable:
        return lambda layer, *_: found.add(name) if layer.training else None

    layers = [(name, layer) for name, layer in task.named_modules() if isinstance(layer, kinds)]
    hooks = [layer.register_forward_hook(note(name)) for name, layer in layers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def check_figures_are_declared(task: Task, split: str, found: dict) -> None:
    r"""Those of a split are the declared ones, each a finite number."""
    for name, value in found.items():
        require(
            name in task.figures,
            f"evaluate({split!r}) gives {name}, which is not in figures: add {name!r}: Figure(title, unit, better)",
        )
        require(
            isinstance(value, int | float) and not isinstance(value, bool),
            f"evaluate({split!r}) gives {name} as {type(value).__name__}: float(...) makes a number of it",
        )
        require(
            math.isfinite(value), f"evaluate({split!r}) gives {name}={value}, which stops a run: leave it out instead"
        )
    missing = [name for name in task.figures if name not in found and name != "loss"]  # that is of training
    require(
        not missing,
        f"figures declares {', '.join(missing)}, which evaluate({split!r}) does not give: where options decide, give "
        "the instance figures of its own",
    )


def check_batches(task: Task) -> None:
    r"""``batch`` depends on the examples and its generator alone, has the last example, and changes nothing."""
    with at_random_parameters(task):
        index, before = numbers_of(task, EXAMPLES), state_of(task)
        kept = index.clone()
        streams: list[str] = []
        with noting_streams(streams):
            first = training_batch(task, index)
        require(not streams, f"batch draws from {' and '.join(streams)}: draw from the generator that it is given")
        require(torch.equal(index, kept), "batch changes the numbers of the examples that it is given")
        torch.default_generator.manual_seed(7)
        require(
            are_equal(first, training_batch(task, index)),
            "batch gives another batch for the same examples and generator: draw from the generator that it is given, "
            "and keep none of your own, which no checkpoint would have",
        )
        changed = changes(task, before)
        require(not changed, f"batch changes {', '.join(changed)}, so that a run cannot be measured without moving it")
        turned = training_batch(task, index.flip(0))
        expected = selected(first, list(range(len(index)))[::-1], len(index))
        if task.examples and expected is not None and are_equal(first, training_batch(task, index, 1)):
            require(
                are_equal(expected, turned),
                "batch gives other examples, or their parts in another order, for the same numbers in another order: "
                "take every part by the numbers that it is given",
            )
        if task.examples:
            try:
                training_batch(task, torch.tensor([0, task.examples - 1]))
            except IndexError as error:
                raise Failed(
                    f"examples is {task.examples}, but batch has no example {task.examples - 1}: {error}"
                ) from None


def check_measurement_examples(task: Task) -> str | None:
    r"""``measurement_batch`` is fixed, at most as large as asked, changes nothing, and is not trained on."""
    with at_random_parameters(task):
        before = state_of(task)
        streams: list[str] = []
        with noting_streams(streams):
            first = task.measurement_batch(EXAMPLES)
        require(not streams, f"measurement_batch draws from {' and '.join(streams)}: it must be the same in every call")
        require(
            are_equal(first, task.measurement_batch(EXAMPLES)),
            "measurement_batch gives another batch in every call: fix it",
        )
        changed = changes(task, before)
        require(not changed, f"measurement_batch changes {', '.join(changed)}: measuring must change nothing")
        for size in (1, EXAMPLES):
            logits = problem_of(in_mode_for(task, size), task.measurement_batch(size)).logits
            found = min(logits.shape[:-2])  # one of the batch dimensions is that of examples
            require(1 <= found <= size, f"measurement_batch({size}) has {found} examples: at most {size} are asked for")
        return check_held_out(task)


def check_held_out(task: Task) -> str | None:
    r"""No measurement examples that are training examples, where either can be told; else a remark."""
    if task.examples is None:
        same = are_equal(*(training_batch(task, seed=seed) for seed in (0, 1)))  # as of a problem without data
        return None if same else "whether it is trained on cannot be told, as examples is None"
    number = min(task.examples, LOOKED_AT)
    numbers = torch.cat(
        [torch.arange(number // 2), torch.arange(task.examples - (number - number // 2), task.examples)]
    )
    trained, again = (training_batch(task, numbers, seed) for seed in (0, 1))
    measured = task.measurement_batch(MEASURED)
    size = len(problem_of(task, measured).logits)
    if not are_equal(trained, again):
        return "whether it is trained on cannot be told, as training examples are drawn anew each time"
    rows, own = rows_of_batch(trained, number), rows_of_batch(measured, size)
    if not own:
        return "whether it is trained on cannot be told from its type"
    known = set(rows)
    diverse = len(known) > len(rows) / 2  # else what there is to see is soon seen
    share = sum(row in known for row in own) / len(own)
    if not diverse or share < MOST_ALIKE:
        return None
    figures = []
    for split in ("valid", "test"):
        torch.default_generator.manual_seed(1)
        figures.append(task.evaluate(split))
    require(
        figures[0] == figures[1],
        f"measurement_batch has training examples, {share:.0%} of it: take them from the validation split",
    )
    return "it is of training examples, as the task has no others: valid and test are the same"


def rows_of_batch(batch: object, size: int) -> list[bytes]:
    r"""What each example of a batch has in its tensors, one after another."""
    tensors = [x for x in trees.tree_leaves(batch) if isinstance(x, Tensor) and x.ndim and len(x) == size]
    if not tensors:
        return []
    return [b"".join(x[i].contiguous().cpu().numpy().tobytes() for x in tensors) for i in range(size)]


def check_nothing_changes(task: Task) -> str | None:
    r"""Making a problem, and evaluating its objective, moves no parameter or buffer: measuring does both."""
    with at_random_parameters(task):
        before = state_of(task)
        problem = some_problem(task)
        problem.objective(draws(problem.logits, 2))
        changed = changes(task, before)
        of_batches = {
            f"{name}.{part}"
            for name in batch_norms(task)
            for part in ("running_mean", "running_var", "num_batches_tracked")
        }
        others = [name for name in changed if name not in of_batches]
        require(
            not others,
            f"problem, or its objective, changes {', '.join(others)}, and so would measuring: keep what is due, and "
            "move it after the optimiser's step",
        )
        if changed:
            return f"measuring moves {', '.join(changed)} as training does: eval() where they are not to move"
        return None


def check_shown(task: Task) -> None:
    r"""``show`` gives tables of text or pictures, and changes nothing."""
    with at_random_parameters(task):
        before = state_of(task)
        for name, each in task.show().items():
            if isinstance(each, Tensor):
                grey = each.detach().float()
                require(
                    grey.ndim == 2 or (grey.ndim == 3 and grey.shape[-1] == 3),
                    f"show gives {name} of shape {list(grey.shape)}: a picture is [height, width], or that and 3",
                )
                require(
                    bool(((grey >= 0) & (grey <= 1)).all()),
                    f"show gives {name} with values from {grey.min():g} to {grey.max():g}: a picture's are from 0 to 1",
                )
            else:
                is_table = isinstance(each, list) and all(
                    isinstance(row, dict) and all(isinstance(cell, str) for cell in row.values()) for row in each
                )
                require(is_table, f"show gives {name} that is neither a picture nor a list of rows with text in them")
        changed = changes(task, before)
        require(
            not changed and task.training, f"show changes {', '.join(changed) or 'the mode'}: it must change nothing"
        )
