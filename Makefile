# Two commands for a fresh machine with Python 3.11 or newer: `make demo` and `make test`.
# The environment lives in .venv, is built once, and again only when pyproject.toml or
# constraints.txt change. Another interpreter: `PYTHON=python3.12 make test`.

PYTHON ?= python3
EXTRAS ?= torch,jax,train,test,docs,dev

VENV  := .venv
STAMP := $(VENV)/.installed
BIN   := $(VENV)/bin
PY    := $(BIN)/python
UV    := $(BIN)/uv

# PyTorch's CUDA libraries are large: leave slow connections the time to fetch them.
export UV_HTTP_TIMEOUT ?= 600
# Whatever is installed or configured outside the environment stays out of it.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow lint format types docs release-check clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1	\2/' | expand -t 20

install: $(STAMP)  ## create .venv and install everything that the other targets need

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { \
	  echo "ringdist needs Python 3.11 or newer, and there is no '$(PYTHON)' here; try: PYTHON=python3.12 make $(MAKECMDGOALS)" >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "ringdist needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1); try: PYTHON=python3.12 make $(MAKECMDGOALS)" >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --constraint constraints.txt uv
	$(UV) pip install --quiet --python $(PY) --constraint constraints.txt --build-constraint constraints.txt --compile-bytecode --editable ".[$(EXTRAS)]"
	@touch $@

demo: $(STAMP)  ## rings complete half-missing digits, are the prior of a VAE, and draw digits with requested attributes
	$(PY) -m benchmarks demo
	$(BIN)/ringdist fit --config adapters/configs/vae_digits.yaml --trainer.max_epochs 24 \
	  --trainer.default_root_dir demo/vae_digits
	$(BIN)/ringdist fit --config adapters/configs/conditional_digits.yaml --trainer.default_root_dir demo/conditional
	$(PY) -m benchmarks demo --sevens "$$(ls -t demo/conditional/*/checkpoints/last.ckpt | head -n 1)"
	@$(PY) -m benchmarks demo --summary

test: $(STAMP)  ## the test suite without what is marked slow
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --dist worksteal

test-slow: $(STAMP)  ## the whole test suite
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --dist worksteal -m "slow or not slow"

lint: $(STAMP)  ## ruff: rules and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)  ## let ruff repair what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP)  ## mypy on the packages
	$(BIN)/mypy $(wildcard ringdist adapters)

docs: $(STAMP)  ## build the site into site/; any warning, and any error in a tutorial, fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

release-check: $(STAMP)  ## build, install and test what a release would ship, also with the oldest versions (GBs)
	UV=$(abspath $(UV)) .ci/release-check

clean:  ## remove the environment and everything built
	rm -rf $(VENV) site build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache .benchmarks .cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
