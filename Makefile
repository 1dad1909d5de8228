# Works on an empty machine with Python 3.10 or newer, pip and make: everything is installed under .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all clean

demo: .venv/recipes
	$(BIN)/python -m recipes.hologram_pruning --preset smoke --output results/hologram_smoke

test: .venv/test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pytest -m "not slow"

test-all: .venv/test
	$(BIN)/pytest

# One stamp file per extra: reinstalled when pyproject.toml changes.
.venv/%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	touch $@

clean:
	rm -rf .venv results
