# Everything runs in .venv, which `make env` makes from a bare Python with venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.installed-docs
PYTEST := QT_QPA_PLATFORM=offscreen $(BIN)/python -m pytest

.PHONY: env demo test lint coverage docs bench fuzz kill lossless clean

env: $(STAMP)

# Runs again only when the requirements change.
$(STAMP): pyproject.toml Testing/system_libraries.sh
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "setuptools>=69"
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/python -m pip install "torch==2.13.0"
	$(BIN)/python -m pip install --editable ".[headless,cohort,test,bench]"
	bash Testing/system_libraries.sh $(BIN)/python
	touch $@

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --editable ".[docs]"
	touch $@

demo: env
	$(BIN)/python Testing/demo.py

# Two processes with one thread each are faster than one process with two threads.
test: lint
	OMP_NUM_THREADS=1 $(PYTEST) -n 2 --dist worksteal

lint: env
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

coverage: env
	$(BIN)/coverage erase
	QT_QPA_PLATFORM=offscreen $(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet || true
	$(BIN)/coverage report
	$(BIN)/coverage html --quiet

docs: $(DOCS_STAMP)
	$(BIN)/sphinx-build --fresh-env --fail-on-warning --keep-going --quiet -b html docs build/site
	@echo "build/site/index.html"

kill: env
	QT_QPA_PLATFORM=offscreen $(BIN)/python Testing/reliability/kill.py

# Cancelled runs of the modules' logic, memory of repeated fits, full disk and read-only folders.
lossless: env
	OMP_NUM_THREADS=1 QT_QPA_PLATFORM=offscreen $(BIN)/python Testing/reliability/cancel.py
	OMP_NUM_THREADS=1 QT_QPA_PLATFORM=offscreen $(BIN)/python Testing/reliability/full_disk.py

bench: env
	$(BIN)/python Testing/benchmarks/run.py

# Damaged files for every reader; `make fuzz MINUTES=1 SEED=7` for another time and the same inputs again.
fuzz: env
	OMP_NUM_THREADS=1 QT_QPA_PLATFORM=offscreen $(BIN)/python Testing/fuzz.py --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))

clean:
	rm -rf build output docs/api .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage*
