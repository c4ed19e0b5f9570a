# `make train` and `make test` set up everything by themselves; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help train test check fmt bench torture report tensorboard clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

# Built again when a dependency changes. The stamp comes last, so that an interrupted build is not taken for a whole one.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Ockham needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

train: $(READY) ## train: make train ARGS="optimizer=adam reg=l2"
	$(VENV)/bin/python train.py $(ARGS)

test: $(READY) ## run the tests
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist worksteal $(ARGS)

check: $(READY) ## lint and type-check
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

fmt: $(READY) ## format the code
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: $(READY) ## time a step against a hand-written loop and stock Lightning
	$(VENV)/bin/python scripts/bench_step.py $(ARGS)

torture: $(READY) ## kill, cut, fill and damage, for hours: make torture ARGS="--parts kill --count 10"
	$(VENV)/bin/python scripts/torture.py $(ARGS)

report: $(READY) ## report on runs and sweeps: make report ARGS="outputs/sweeps/<name>"
	$(VENV)/bin/python scripts/report.py $(or $(ARGS),outputs)

tensorboard: $(READY) ## open TensorBoard on this machine only: make tensorboard ARGS="outputs/sweeps/<name>"
	$(VENV)/bin/tensorboard --host localhost --logdir $(or $(ARGS),outputs)

clean: ## remove the environment and caches, never outputs
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache
