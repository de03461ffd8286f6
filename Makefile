PYTHON ?= python3
BIN := .venv/bin
# Else each process compiles anew what it imports, for seconds, wherever this is set.
export PYTHONDONTWRITEBYTECODE =
SUDO := $(shell test "$$(id -u)" = 0 || echo sudo)
DEMO := softmax,straight_through,gumbel_softmax,arsm,reinforce

.DEFAULT_GOAL := help
.PHONY: help install demo compare leaderboard comparisons results pictures gpu test quick test-long browser lint bench certification certificates matrix bias table docs

help:  ## what each target does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --upgrade pip  # the one that comes with Python takes thrice as long to resolve
	$(BIN)/python -m pip install -qq --no-compile -c constraints.txt -e '.[dev]'
	touch $@

install: .venv/installed  ## set everything up in .venv

demo: .venv/installed  ## compare five tuned estimators on a discrete VAE of digits: a page with tables and charts
	$(BIN)/python run.py -m estimator=$(DEMO) task=dvae optimizer.lr=0.001,0.003 seed=1,2 steps=500 batch_size=50 \
	    valid.every=125 measure.every=250 measure.reference_draws=5 output=output/demo wandb.mode=disabled hydra/launcher=joblib
	$(BIN)/python report.py output/demo --tune

compare: .venv/installed  ## compare all estimators that can be on the same task, which takes a while
	$(BIN)/python run.py -m 'estimator=glob(*,exclude=[exact,sparse_expectation])' task=dvae task.kl=sampled seed=1,2 steps=2000 measure.every=1000 \
	    output=output/compare wandb.mode=offline hydra/launcher=joblib
	$(BIN)/python report.py output/compare

leaderboard: .venv/installed  ## tune every estimator on three problems, for a day: docs/leaderboard.md
	for name in dvae binary structured; do \
	    $(BIN)/python run.py -m experiment=leaderboard_$$name wandb.mode=offline hydra/launcher=joblib || [ $$? = 1 ] || exit 2; \
	    $(BIN)/python report.py output/leaderboard_$$name --archive docs/leaderboard; done  # 1: some jobs failed, which the page says
	$(BIN)/python report.py docs/leaderboard --leaderboard docs/leaderboard.md
	PYTHONPATH=. $(BIN)/python docs/scripts/choose.py docs/choose.md

pictures: .venv/installed  ## draw the pictures of the pages from the runs in docs/demo and docs/comparisons
	$(BIN)/python report.py docs/demo/generation.jsonl.xz --to output/pictures
	cp output/pictures/generation.png docs/generation.png
	$(BIN)/python report.py docs/demo/dvae.jsonl.xz --tune --to output/pictures
	$(BIN)/python docs/scripts/report_picture.py output/pictures/report.html docs/report.png
	PYTHONPATH=. $(BIN)/python docs/scripts/episodes.py docs/comparisons/cartpole.jsonl.xz docs/cartpole.md docs/cartpole.png

SWEEP := $(BIN)/python run.py -m wandb.mode=offline hydra/launcher=joblib

comparisons: .venv/installed  ## compare gradients of vector quantisation, parsing and CartPole, for hours: docs/vq.md
	$(SWEEP) experiment=vq_fashion_mnist || [ $$? = 1 ] || exit 2
	$(SWEEP) experiment=cartpole || [ $$? = 1 ] || exit 2
	$(SWEEP) experiment=cartpole "hydra.sweeper.rows=[{estimator:reinforce}]" 'seed=range(6,16)' || [ $$? = 1 ] || exit 2
	$(SWEEP) task=listops estimator=reinmax,st_gumbel_softmax seed=1,2,3 steps=2000 batch_size=100 optimizer.lr=0.003 \
	    measure.every=0 output=output/listops || [ $$? = 1 ] || exit 2
	for name in vq_fashion_mnist cartpole listops; do \
	    $(BIN)/python report.py output/$$name --archive docs/comparisons || exit 1; done
	$(BIN)/python report.py docs/comparisons --to output/comparisons
	$(BIN)/python docs/scripts/fill_table.py docs/vq.md output/comparisons/vq.md

results: .venv/installed  ## write RESULTS.md from the archive of runs of published experiments
	$(BIN)/python report.py docs/results/runs --results RESULTS.md

# On three processes, as some wait; those of a file in one, which makes once what they share.
SIDE_BY_SIDE := -n 3 --dist loadfile --no-loadscope-reorder

test: .venv/installed  ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SIDE_BY_SIDE)

QUICK := estimators/test_estimators.py estimators/test_options.py estimators/test_sampling.py certification/test_page.py \
    certification/test_measurement.py gradients/test_evaluations.py gradients/test_extremes.py tasks/test_images.py \
    harness/test_names.py harness/test_endings.py reporting/test_words.py reporting/test_charts.py test_map.py

quick: lint  ## lint and half of the tests, in a minute and a half: every estimator, some of every room, the map of imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(addprefix tests/,$(QUICK)) -k "not any_number_of_leading_dimensions"

test-long: .venv/installed  ## run the long tests, some of which need root, and Slurm: apt-get install slurm-wlm munge
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/long
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SIDE_BY_SIDE) -m long

browser:  ## install Chromium, which the tests of the report's page need
	command -v chromium || command -v chromium-browser || command -v google-chrome || \
	    { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -yqq chromium; }

.mypy_cache/hardmax:  # a link by which mypy finds estimators/ as hardmax.estimators, and so on
	mkdir -p .mypy_cache && ln -s .. $@

lint: .venv/installed .mypy_cache/hardmax  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

certification: .venv/installed  ## measure known mistakes of public code: docs/certification.md
	PYTHONPATH=. $(BIN)/python tests/mistakes.py

certificates: .venv/installed  ## certify every estimator, and other libraries': docs/certificates.md
	$(BIN)/python -W ignore -m benchmarks.certificates docs/certificates.md

matrix: .venv/installed  ## train every estimator on every task, small: docs/matrix.md
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m benchmarks.matrix docs/matrix.md

bias: .venv/installed  ## draw bias and variance of the biased estimators: docs/bias_variance.png
	$(BIN)/python -m benchmarks.bias_variance

bench: .venv/installed  ## print speed figures, as ratios measured in one run
	for name in overhead estimators libraries gradients marginalisation; do $(BIN)/python -m benchmarks.$$name || exit 1; done

gpu:  ## certify and time everything on a GPU with the PyTorch that is installed, in 5 minutes: docs/gpu.md
	$(or $(wildcard $(BIN)/python),$(PYTHON)) -m benchmarks.gpu --device cuda --to docs

table: .venv/installed  ## rewrite tables of estimators from classes and archives: docs/estimators.md, docs/choose.md
	$(BIN)/python -m hardmax.estimators docs/estimators.md
	PYTHONPATH=. $(BIN)/python docs/scripts/choose.py docs/choose.md

docs: .venv/installed  ## build the site in site/, without a network: open site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build -q
