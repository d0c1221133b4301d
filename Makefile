# `make train` and `make test` do everything from a fresh clone; all they need is Python 3.11 and make.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
EXPERIMENT ?= digits_classifier

.PHONY: train test coverage test-long soak bench lint format venv clean help

help:
	@echo "make train      install, train $(EXPERIMENT), say where everything is"
	@echo "make test       install, lint, type-check, test"
	@echo "make coverage   the tests again, and which lines they reach"
	@echo "make test-long  the tests that take minutes"
	@echo "make soak       train 2,000 epochs under random kills: does anything grow?"
	@echo "make bench      measure; the tables of docs/performance.md"
	@echo "make format     let ruff format and fix"

train: $(VENV)/.installed
	$(BIN)/pymodules train $(EXPERIMENT) --reset --yes

test: lint
	$(BIN)/pytest -m "not long" -n auto --dist worksteal

coverage: $(VENV)/.installed
	$(BIN)/pytest -m "not long" -n auto --dist worksteal --cov --cov-report=term

test-long: $(VENV)/.installed
	$(BIN)/pytest -m long

soak: $(VENV)/.installed
	$(BIN)/python tests/soak/soak.py

bench: $(VENV)/.installed
	$(BIN)/python tests/benchmarks/startup.py
	$(BIN)/python tests/benchmarks/many_plugins.py
	$(BIN)/python tests/benchmarks/step_overhead.py
	$(BIN)/python tests/benchmarks/average_update.py
	$(BIN)/python -W ignore tests/benchmarks/checkpoint_cost.py
	$(BIN)/python tests/benchmarks/checkpoint_load.py
	$(BIN)/python tests/benchmarks/several_processes.py
	$(BIN)/python tests/benchmarks/checkpoints_in_parts.py

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/complexipy pymodules_core plugins/*/src --max-complexity-allowed 15 --failed --quiet

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

venv: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt hatchling editables
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable ".[dev,examples]"
	$(BIN)/python -m compileall -q pymodules_core
	touch $@

clean:
	rm -rf $(VENV) .coverage .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
