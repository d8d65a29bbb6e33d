# Each verb does its own set-up; `make help` lists them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PROFILE ?= auto
ARGS   ?=
DATA   ?= ../shared/data
# one thread in a process: the harness runs one worker process per core
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup benchmark smoke test test-real lint types docs audit bench gpu-check faults soak report backbone clean

help: ## what one can do here
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/ready ## virtual environment with the tested versions

# torch first and alone: the constraint then keeps every later package from replacing it with another build
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 to 3.13 is needed; name one with PYTHON=..." if not (3, 11) <= sys.version_info < (3, 14) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $$(grep '^torch==' constraints.txt)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

benchmark: setup ## fill the grid and show the leaderboard (PROFILE=demo, ARGS='--methods lora')
	$(BIN)/python -m benchmark run --profile $(PROFILE) $(ARGS)

smoke: setup ## every method x every task, a few steps each
	$(BIN)/python -m benchmark run --profile smoke $(ARGS)

test: setup ## the test suite
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 $(ARGS)

test-real: setup ## every method on the original files below DATA, and what their README counts (ARGS='--tasks ocnli')
	$(if $(wildcard $(DATA)),,@echo "skipped: no original files at $(DATA); DATA=<folder with one sub-folder per task>")
	$(if $(wildcard $(DATA)),ADAPTERBENCH_DATA=$(abspath $(DATA)) HF_HUB_OFFLINE=1 $(BIN)/python -m pytest tests/tasks/test_real_files.py)
	$(if $(wildcard $(DATA)),HF_HUB_OFFLINE=1 $(BIN)/python -m benchmark run --profile tests/real.yaml --data-dir $(DATA) $(ARGS))

lint: setup types ## style, imports and types; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## type hints, strictly where people build on them
	$(BIN)/mypy

audit: setup ## the pinned packages against the list of known vulnerabilities; says so where that cannot be asked
	$(BIN)/python -m tests.audit

docs: $(VENV)/ready-docs ## the documentation as pages that need no network, into site/
	HF_HUB_OFFLINE=1 $(BIN)/python docs/make.py
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -d build/docs docs site $(ARGS)
	@echo "open site/index.html"

$(VENV)/ready-docs: $(VENV)/ready
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	touch $@

bench: setup ## the suite against a naive peer, into docs/performance.md (ARGS=--quick)
	$(BIN)/python -m tests.performance $(ARGS)

# with BIN=/folder/of/python nothing is installed: whatever versions are there are used
gpu-check: $(if $(filter file,$(origin BIN)),setup) ## what only a GPU can show: speed, memory, exactness; no network
	HF_HUB_OFFLINE=1 $(BIN)/python -m tests.gpu_acceptance.check $(ARGS)

faults: setup ## disturb a small grid in every way, resume it, compare (under 10 minutes; ARGS=--short)
	$(BIN)/python -m tests.fault_injection $(ARGS)

soak: setup ## 1,000 small cells in one process: no growth of memory, open files or threads (ARGS='--cells 200')
	$(BIN)/python -m tests.fault_injection.soak $(ARGS)

report: setup ## the page, tables and picture of the last results, from their files; opens the page
	$(BIN)/python -m benchmark report --profile $(PROFILE) --open $(ARGS)

backbone: setup ## pretrain the embedded backbone anew (about 25 minutes on 2 cores)
	OMP_NUM_THREADS=2 $(BIN)/python -m methods.tiny.build $(ARGS)

clean: ## remove the virtual environment and caches, keep the results
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache build site *.egg-info
