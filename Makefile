# Everything runs in .venv, which `make env` makes from a bare Python with venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: env demo test lint bench clean

env: $(STAMP)

# Runs again only when the requirements change.
$(STAMP): pyproject.toml Testing/system_libraries.sh
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "setuptools>=69"
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/python -m pip install "torch==2.13.0"
	$(BIN)/python -m pip install --editable ".[headless,test,bench]"
	bash Testing/system_libraries.sh $(BIN)/python
	touch $@

demo: env
	$(BIN)/python Testing/demo.py

test: lint
	QT_QPA_PLATFORM=offscreen $(BIN)/python -m pytest

lint: env
	$(BIN)/ruff check

bench: env
	$(BIN)/python Testing/benchmarks/run.py

clean:
	rm -rf build output .pytest_cache .ruff_cache .hypothesis
