# Each target makes the virtual environment it needs: `make train` and `make test` work on a fresh machine with Python 3.11 to 3.13.
VENV ?= .venv
PYTHON ?= python3
ENV ?= CartPole-v1
STEPS ?= 1e5

.PHONY: train test lint types docs check format stubs

train: $(VENV)/installed
	$(VENV)/bin/agentzoo train dqn --env $(ENV) --steps $(STEPS)

test: $(VENV)/developing
	$(VENV)/bin/python -m pytest -n auto --dist loadgroup

lint: $(VENV)/developing
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/developing
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

docs: $(VENV)/developing
	$(VENV)/bin/sphinx-build -W -q -b html docs docs/_build/html

check: test lint types docs

format: $(VENV)/developing
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

stubs: $(VENV)/developing
	$(VENV)/bin/python scripts/stubs.py

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable .
	touch $@

$(VENV)/developing: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable '.[tests,docs]'
	touch $@
