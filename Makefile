# Each target sets up all it needs in .venv and works from nothing. Python 3.10 or later.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test test-fast lint lint-js types bench wheel clean

demo: $(VENV)/.installed-examples
	$(BIN)/python examples/digits_vgg16.py

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n auto

test-fast: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n auto -m "not slow"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# of the tab in TensorBoard; eslint comes from npm, so this needs a network the first time
lint-js:
	npx --yes eslint@10 --config tests/front_end/eslint.config.js lrp_lightning/tensorboard_plugin/static tests/front_end

bench: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/compare.py

wheel: $(VENV)/.installed-test
	rm -rf dist
	$(BIN)/python -m build

$(VENV)/.installed-%: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "lrp_lightning needs Python 3.10 or later; say which by make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
