# Every target does its own set-up: it creates the virtual environment it needs and installs into it once.
# A stamp file remembers the installation; it is made again when pyproject.toml changes.
#
#   make demo    train the digits example: check, compile, train, evaluate, export
#   make test    lint, formatting, types and all tests
#   make lint    lint, formatting and types only
#   make format  rewrite the sources in the project's format
#   make bench   everything that goals are stated for, against PyTorch, JAX and others (own environment; BENCH_ARGS="--quick"
#                for a short run)
#   make clean   remove the environments and the tools' caches

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PYTHON     ?= python3
VENV       := .venv
BENCH_VENV := .venv-bench
PIP_FLAGS  := --quiet --disable-pip-version-check
BENCH_ARGS ?=
TEST_ARGS  ?=
SOURCES    := .

# More flags for the bench's installation, such as another index for a CPU-only build of torch.
BENCH_PIP_FLAGS ?=

# The environments are made by hand here, so variables that point Python elsewhere must not leak in.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

.PHONY: demo test lint format bench clean

demo: $(VENV)/installed
	$(VENV)/bin/tw train examples/digits/digits.kyn

test: lint
	$(VENV)/bin/python -m pytest $(TEST_ARGS)

lint: $(VENV)/installed-test
	$(VENV)/bin/ruff check $(SOURCES)
	$(VENV)/bin/ruff format --check $(SOURCES)
	$(VENV)/bin/mypy --strict src

format: $(VENV)/installed-test
	$(VENV)/bin/ruff check --fix $(SOURCES)
	$(VENV)/bin/ruff format $(SOURCES)

bench: $(BENCH_VENV)/installed
	$(BENCH_VENV)/bin/python -m bench.all $(BENCH_ARGS)

clean:
	rm -rf $(VENV) $(BENCH_VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	$(call create_environment,$(VENV))

$(BENCH_VENV)/bin/python:
	$(call create_environment,$(BENCH_VENV))

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install $(PIP_FLAGS) --editable .
	touch $@

$(VENV)/installed-test: pyproject.toml | $(VENV)/installed
	$(VENV)/bin/python -m pip install $(PIP_FLAGS) --editable '.[test]'
	touch $@

$(BENCH_VENV)/installed: pyproject.toml | $(BENCH_VENV)/bin/python
	$(BENCH_VENV)/bin/python -m pip install $(PIP_FLAGS) $(BENCH_PIP_FLAGS) --editable '.[bench]'
	touch $@

# An environment that was only half made is removed, so that the next call starts afresh.
define create_environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: Python 3.11 or newer is needed, and '$(PYTHON)' is not; try: make PYTHON=python3.12 …" >&2; exit 1; }
	$(PYTHON) -m venv $(1) || { rm -rf $(1); \
	  echo "error: could not create a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
endef
