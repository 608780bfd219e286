PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint bench clean

demo: .venv/lab
	$(BIN)/failover lab demo

test: .venv/dev
	PYTHON=$(BIN)/python sh tests/parts.sh
	$(MAKE) --no-print-directory lint
	$(BIN)/pytest -n 3 --dist loadfile

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_floors.py

bench: .venv/dev
	$(BIN)/python -m bench

clean:
	rm -rf .venv .bench build dist

.venv/lab: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[lab]'
	touch $@

.venv/dev: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[lab,dev]'
	touch $@ .venv/lab
