r"""What a GPU does with this project, in one command that needs torch, numpy and PyYAML, and no network.

``python3 -m benchmarks.gpu --device cuda --to FOLDER --seconds 280`` writes ``gpu.json`` and ``gpu.md`` into the
folder: every estimator certified on the device, draws, resumption, milliseconds a step, processes side by side,
gradient draws, peak memory, and compiled steps. Each part runs in a process of its own, has its share of the time, and
writes after each of its lines: what fails, or comes to its end too early, takes nothing else with it.
``python -m benchmarks.gpu --page docs/gpu.json docs/gpu.md`` writes the page again.
"""
