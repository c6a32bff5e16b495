# Everything a developer or CI does. Needs Python 3.11 or later and make; the rest goes into .venv.
#
#     make demo     pictures from a compressed SVD, and a tree reduction through a server of its own
#     make test     everything that has to hold
#     make bench    everything that is measured; BENCH=--quick for small ladders and peers

PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo examples test lint pytest soak dask-suite bench redis-server clean

help:  ## show this list
	@echo "make demo and make test do all set-up by themselves. Targets:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-20s%s\n", $$1, $$2 }'

demo: $(VENV)/ready-demo  ## run the examples; the pictures go to out/demo
	$(BIN)/python examples/photograph.py
	$(BIN)/python examples/tree_reduction.py

examples: $(VENV)/ready-demo  ## run every example in full, and the notebook, which goes to out/tour.ipynb
	@for script in $(filter-out %/timing.py,$(wildcard examples/*.py)); do \
	    printf '\n--- %s\n' "$$script"; $(BIN)/python "$$script" || exit 1; done
	$(BIN)/python .ci/notebook.py examples/tour.ipynb out/tour.ipynb

test: lint pytest  ## lint, types, layers, and all tests but the long ones

lint: $(VENV)/ready-dev  ## ruff, mypy --strict, and the imports between layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

pytest: $(VENV)/ready-dev redis-server
	$(BIN)/python -m pytest -q -n $(JOBS)

soak: $(VENV)/ready-dev redis-server  ## the long tests
	$(BIN)/python -m pytest -q -m soak --timeout 3600

dask-suite: $(VENV)/ready-dev  ## Dask's own tests, with Wukong in the place of every scheduler
	$(BIN)/python tests/dask_suite/run.py -n $(JOBS)

bench: $(VENV)/ready-dev  ## every benchmark, one after the other; at last the ladder, and the peers
	@for script in $(filter-out %/against.py,$(wildcard benchmarks/[a-z]*.py)); do echo "--- $$script"; $(BIN)/python "$$script" || exit 1; done
	$(BIN)/python -m benchmarks.ladder $(BENCH)
	$(BIN)/python -m benchmarks.peers $(BENCH)

redis-server:
	@sh .ci/redis-server

clean:  ## remove what was installed, built and cached here
	rm -rf $(VENV) out build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Wukong needs Python 3.11 or later, and $(PYTHON) is not: make PYTHON=/path/of/python3.11 ..." >&2; exit 1; }
	@echo "Creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "Python could not create $(VENV); on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/ready-%: pyproject.toml | $(BIN)/python
	@echo "Installing wukong[$*] and what it needs into $(VENV); the first time takes a minute or two"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@
