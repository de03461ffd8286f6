r"""The page docs/gpu.md, from the figures."""

from collections.abc import Callable

from hardmax import markdown

HEAD = """\
# On a GPU

Measured on {where} with torch {torch}, Python {python}, in {seconds:.0f} seconds, by `make gpu`, which runs on any
machine with a GPU and torch: `python3 -m benchmarks.gpu --device cuda --to docs`. The model is a discrete VAE
784-200-(K × C)-200-784, K = 20 variables of C = 10 categories unless said otherwise, batches of 100, in float32 without
TF32; a step is a forward pass, a backward pass and Adam (`fused=True`).{unmeasured}
"""
UNMEASURED = """

**No GPU has been used yet**: this is what a processor could show of the same command. It says that everything runs,
and nothing of a GPU's speed."""


def written(found: dict) -> str:
    r"""The page; ``since`` in the figures says what has changed in the code since they were measured."""
    about = found["parts"]["machine"]["lines"]["machine"]
    where = about["name"] + (f" ({about['memory'] / 2**30:.0f} GiB, CUDA {about['cuda']})" if "cuda" in about else "")
    unmeasured = "" if "cuda" in about else UNMEASURED
    text = HEAD.format(where=where, seconds=found["seconds"], unmeasured=unmeasured, **about)
    text += f"\nChanged since: {found['since']}\n" if "since" in found else ""
    for name, section in SECTIONS.items():
        if name in found["parts"]:
            text += "\n" + section(found["parts"][name]) + ending(found["parts"][name])
    return text


def ending(part: dict) -> str:
    r"""What failed, and what there was no time for."""
    said = [f"*{name}*: {markdown.literal(x['error'])}" for name, x in part["lines"].items() if "error" in x]
    said += [f"this part: {part['error']}"] if "error" in part else []
    text = "\nFailed: " + "; ".join(said) + ".\n" if said else ""
    return text + (f"\nThere was no time for {', '.join(part['left_out'])}.\n" if part["left_out"] else "")


def good(part: dict) -> dict[str, dict]:
    r"""The lines without an error."""
    return {name: line for name, line in part["lines"].items() if "error" not in line}


def certification(part: dict) -> str:
    lines = good(part)
    exact = {name: x for name, x in lines.items() if x["exact"]}
    other = {name: x for name, x in lines.items() if not x["exact"]}
    text = f"## Certified\n\n{len(lines)} of {len(part['lines'])} estimators agree with float64 on the processor.\n"
    if exact:
        bound = next(iter(exact.values()))["bound"]
        text += f"""
Every outcome of the draws enumerated on the device in float32: the largest error of expected value, gradient to the
logits and gradient to the objective's parameters, relative to the largest coordinate of each, on small problems (bound:
{bound:.1e}, 64 roundings).

"""
        rows = [(name, f"{max(x['errors']):.1e}") for name, x in exact.items()]
        text += markdown.table(["estimator", "largest error"], rows, right=True)
    if other:
        text += """
With noise that cannot be enumerated, means of 50,000 draws on the device in float32, against enumeration or as many
draws on the processor: the largest deviation in bounds of a z-test. One of a thousand right ones exceeds 1, and then
ten times as many are drawn.

"""
        rows = [(name, f"{max(x['errors']):.2f}") for name, x in other.items()]
        text += markdown.table(["estimator", "largest deviation, in bounds"], rows, right=True)
    return text


def draws(part: dict) -> str:
    lines = good(part)
    text = """## Draws

Joint draws of two variables of 5 categories, the rarest of probability 3e-5, against the softmax: Pearson's chi-square
over all joint outcomes, those put together of which fewer than 5 are expected.

"""
    rows = []
    for name, x in lines.items():
        if "freedom" in x:
            rows.append((name, f"{x['draws']:,}", f"{x['chi_square']:.1f}", x["freedom"], f"{x['p_value']:.2g}"))
    text += markdown.table(["what draws", "draws", "chi-square", "degrees of freedom", "p"], rows, right=True)
    for name, x in lines.items():
        if "low" in x:
            text += f"\nThe {name}, float32, {x['draws']:,} numbers: {x['low']:.3g} to {x['high']:.9g}.\n"
    return text


def steps(part: dict) -> str:
    lines = good(part)
    text = (
        "## Milliseconds a step\n\nEager, in turns with Gumbel-softmax written by hand in plain PyTorch; medians.\n\n"
    )
    rows = [(n, f"{x['ms']:.2f}", f"{x['by_hand_ms']:.2f}", f"{x['ratio']:.2f}") for n, x in lines.items()]
    return text + markdown.table(["estimator", "ms", "by hand, ms", "ratio"], rows, right=True)


def compiled(part: dict) -> str:
    text = """## Compiled steps

The loss under `torch.compile(mode="reduce-overhead")`, which on a GPU is a CUDA graph; the optimiser is not compiled.
*by hand* is Gumbel-softmax in plain PyTorch.

"""
    rows = []
    for name, x in good(part).items():
        before, after = x["eager_ms"], x["compiled_ms"]
        rows.append((name, f"{before:.2f}", f"{after:.2f}", f"{before / after:.2f}", f"{x['warm_up_seconds']:.0f}"))
    titles = ["estimator", "eager, ms", "compiled, ms", "times as fast", "to compile, s"]
    return text + markdown.table(titles, rows, right=True)


def resume(part: dict) -> str:
    text = """## Bit for bit

Whether two equal runs end with the same parameters, bit for bit, and whether one in two halves does, with model,
estimator, optimiser and random streams restored in between. PyTorch's deterministic algorithms are not asked for.

"""
    say = lambda holds: "yes" if holds else "**no**"
    rows = [(name, x["steps"], say(x["repeats"]), say(x["resumes"])) for name, x in good(part).items()]
    return text + markdown.table(["estimator", "steps", "repeats", "resumes"], rows)


def jobs(part: dict) -> str:
    lines = good(part)
    alone = lines.get("1", {}).get("steps_per_second")
    rows = []
    for name, x in lines.items():
        times = f"{x['steps_per_second'] / alone:.1f}" if alone else ""
        each = f"{x['slowest']:.0f} to {x['fastest']:.0f}"
        rows.append((name, f"{x['steps_per_second']:,.0f}", times, each, size(x["memory_used"])))
    titles = ["processes", "steps a second, all", "times one", "each", "memory taken"]
    text = "## Processes side by side\n\nSteps a second of Gumbel-softmax in so many processes on one device.\n\n"
    return text + markdown.table(titles, rows, right=True)


def gradient_draws(part: dict) -> str:
    text = """## Gradient draws

Statistics of so many gradient draws on one batch, to the logits and to the encoder, with standard errors, as runs log
them; and how many training steps take as long.

"""
    rows = [(n, f"{x['draws']:,}", f"{x['seconds']:.2f}", f"{x['steps']:,.0f}") for n, x in good(part).items()]
    return text + markdown.table(["estimator", "draws", "seconds", "in steps"], rows, right=True)


def memory(part: dict) -> str:
    lines = good(part)
    names = list(dict.fromkeys(line.split(" @ ")[0] for line in lines))
    shapes = list(dict.fromkeys(line.split(" @ ")[1] for line in lines))
    text = """## Peak memory

Of a model, Adam and one training step, for K × C variables and categories; in brackets, seconds with all that a first
step has to load.

"""

    def cell(name: str, shape: str) -> str:
        x = lines.get(f"{name} @ {shape}")
        stopped = f", {x['stopped']}" if x and "stopped" in x else ""
        return f"{size(x['peak'])} ({x['seconds']:.1f}{stopped})" if x else ""

    rows = [(name, *(cell(name, shape) for shape in shapes)) for name in names]
    return text + markdown.table(["estimator", *(f"K × C = {shape}" for shape in shapes)], rows, right=True)


def size(count: int | None) -> str:
    r"""Bytes in words."""
    if count is None:
        return "not counted"
    return f"{count / 2**20:,.0f} MiB" if count < 2**30 else f"{count / 2**30:,.1f} GiB"


SECTIONS: dict[str, Callable[[dict], str]] = {
    "certification": certification,
    "draws": draws,
    "resume": resume,
    "steps": steps,
    "compiled": compiled,
    "jobs": jobs,
    "gradient_draws": gradient_draws,
    "memory": memory,
}
