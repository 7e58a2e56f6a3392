# Each target makes the virtual environment that it needs, so `make train` and `make test` work on a
# fresh machine with Python 3.11 to 3.13. On Windows, run make in Git Bash.
VENV ?= .venv
ENV ?= CartPole-v1
STEPS ?= 1e5
ifeq ($(OS),Windows_NT)
  PYTHON ?= python
  BIN := $(VENV)/Scripts
else
  PYTHON ?= python3
  BIN := $(VENV)/bin
endif

.PHONY: train test exhaustive quick lint types docs pdf check format stubs

train: $(VENV)/installed
	$(BIN)/agentzoo train dqn --env $(ENV) --steps $(STEPS)

test: $(VENV)/developing
	$(BIN)/python -m pytest -n auto

# The tests that `make test` leaves out, because they repeat others at length.
exhaustive: $(VENV)/developing
	$(BIN)/python -m pytest -n auto -m exhaustive

# What to run after each edit: the operators, the layers, and what a user does with an agent.
QUICK := tests/core tests/test_api.py tests/test_config.py tests/test_layering.py
quick: $(VENV)/developing
	$(BIN)/python -m pytest -n auto -m "not learning and not slow and not exhaustive" $(QUICK)

lint: $(VENV)/developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/developing
	$(BIN)/pyright --pythonpath $(BIN)/python

# A fresh build, because Sphinx does not bring all pages with source code up to date.
docs: $(VENV)/developing
	rm -rf docs/_build/html
	$(BIN)/sphinx-build -W -q -b html docs docs/_build/html
	$(BIN)/python docs/check.py docs/_build/html

# The whole documentation as docs/_build/agentzoo.pdf. It needs Chromium or Google Chrome.
pdf: docs
	$(BIN)/python docs/pdf.py docs/_build/html docs/_build/agentzoo.pdf

check: test lint types docs

format: $(VENV)/developing
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

stubs: $(VENV)/developing
	$(BIN)/python scripts/stubs.py

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/developing: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[tests,docs]'
	touch $@
