# Two commands do everything on a fresh machine: `make run` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: run test slow exhaustive lint types bench check clean

run: $(READY)  ## search the shipped space on the embedded data; ends with the report's path
	$(BIN)/search run --space attention.yaml

test: $(READY)  ## the default test suite
	$(BIN)/python -m pytest -n auto --maxprocesses 4

slow: $(READY)  ## the slower checks
	$(BIN)/python -m pytest -m slow -n auto --maxprocesses 4

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

exhaustive: $(READY)  ## every backbone with every block at every placement
	$(BIN)/python -m pytest -m exhaustive -n auto --maxprocesses 4

bench: $(READY)  ## speed and memory, as ratios
	$(BIN)/python -m pytest -m benchmark -s tests/benchmarks

check: lint types test

# The environment is made where there is none, and again when what it needs has changed.
$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
