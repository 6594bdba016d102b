# Two commands, each complete from a fresh clone: `make demo` and `make test`. They need Python 3.11, pip and make.
#
#   make demo    installs into .venv and runs the main job on scikit-learn's digits
#   make test    installs the development tools and the rig too; then ruff, mypy and pytest
#   make rig     emulated devices for the tests, into .rig: from apt and pip alone, nothing system-wide (tests/rig/install.py)
#   make lint    ruff and mypy alone
#   make clean   removes .venv, .rig, caches and build folders
#
# Variables: PYTHON (the interpreter that makes .venv), PIP_ARGS (for every pip install), PYTEST_ARGS.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP_ARGS ?=
PYTEST_ARGS ?= -n 2
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt

.PHONY: demo test rig lint clean

demo: .venv/.demo
	$(BIN)/packlight demo --force

test: .venv/.test rig lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

# What can't be had here is left out, loudly, and its tests are skipped.
rig: .venv/.test
	PYTHONPATH=tests $(BIN)/python -m rig.install .rig

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv .rig build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Some systems split ensurepip from venv; the interpreter's own pip then fills the environment.
.venv/bin/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "packlight needs Python 3.11 or newer, found '$(PYTHON)'; set it with: make PYTHON=/path/to/python3.11" >&2; exit 3; }
	"$(PYTHON)" -m venv .venv \
	  || { "$(PYTHON)" -m venv --clear --without-pip .venv && "$(PYTHON)" -m pip --python .venv/bin/python install pip; }

.venv/.demo: EXTRAS := all
.venv/.test: EXTRAS := all,dev
.venv/.demo .venv/.test: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing into .venv (a minute or two the first time)"
	$(PIP) hatchling
	@$(PIP) --no-build-isolation -e '.[$(EXTRAS)]' \
	  || { echo "the install failed; if it is about CUDA packages, the index has no CPU build of torch: see constraints.txt" >&2; exit 3; }
	touch $@
