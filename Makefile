# Each target sets up all it needs in .venv and works from nothing. Python 3.10 or later.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test test-fast test-oldest lint lint-js docs bench bench-quick bench-truth dist clean

demo: $(VENV)/.installed-examples
	$(BIN)/python examples/digits_vgg16.py

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n auto --dist worksteal

test-fast: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

# the lowest versions that pyproject.toml allows, all together, in an environment of its own
OLDEST ?= python3.10
test-oldest: .venv-oldest/.installed
	.venv-oldest/bin/python -m pytest -m "not slow"

.venv-oldest/.installed: pyproject.toml tests/oldest.txt
	test -x .venv-oldest/bin/python || $(OLDEST) -m venv .venv-oldest
	PIP_CONSTRAINT=tests/oldest.txt .venv-oldest/bin/python -m pip install --quiet --editable '.[test]'
	@touch $@

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# of the tab in TensorBoard; eslint comes from npm, so this needs a network the first time
FRONT_END = tests/tensorboard_plugin/front_end
lint-js:
	npx --yes eslint@10 --config $(FRONT_END)/eslint.config.js lrp_lightning/tensorboard_plugin/static $(FRONT_END)

# in parts: make bench BENCH="-k vgg16_bn"; the pages are made of all parts that are there. It fails where a ratio of ours has
# become greater than benchmarks/ratios.json allows; benchmarks/tables.py --update stores what was measured
BENCH ?=
SUITE = $(BIN)/python -m pytest benchmarks --benchmark-quiet --benchmark-json=$(1)/$$(date +%Y%m%d-%H%M%S).json

bench: $(VENV)/.installed-bench
	mkdir -p benchmarks/runs
	$(call SUITE,benchmarks/runs) $(BENCH)
	$(BIN)/python benchmarks/tables.py --check

# two models, one image, two minutes; writes no page
bench-quick: $(VENV)/.installed-bench
	rm -rf benchmarks/runs/quick && mkdir -p benchmarks/runs/quick
	$(call SUITE,benchmarks/runs/quick) --quick $(BENCH)
	$(BIN)/python benchmarks/tables.py --runs benchmarks/runs/quick --no-pages --check

# what attributions are worth: where the truth is known, in mosaics of photographs, along perturbation curves, of networks with random
# weights or labels, and by Quantus; figures are kept in benchmarks/runs, and TRUTH="mosaics sanity" does a part
TRUTH ?= ground_truth mosaics perturbation sanity default_composite quantus_metrics
bench-truth: $(VENV)/.installed-truth
	for script in $(TRUTH); do $(BIN)/python benchmarks/$$script.py || exit 1; done

# into docs/_build/html; a warning is an error
docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --builder html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

dist: $(VENV)/.installed-release
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

$(VENV)/.installed-%: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "lrp_lightning needs Python 3.10 or later; say which by make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

clean:
	rm -rf $(VENV) .venv-oldest build dist docs/_build *.egg-info
