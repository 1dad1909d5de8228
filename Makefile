# Works on an empty machine with Python 3.10 or newer, pip and make: everything is installed under .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo docs lint types package test test-all test-nni2 test-nni3 clean

demo: .venv/recipes
	$(BIN)/python -m recipes.hologram_pruning --preset smoke --output results/hologram_smoke

test: lint types
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto -m "not slow"  # a process a core, a thread each

lint: .venv/test
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/test
	$(BIN)/mypy

package: .venv/test  # wheel and sdist into dist/; each in an environment of its own, where README's snippets run
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/pytest tests/test_packaging.py
	test -x .venv-package/bin/python || $(PYTHON) -m venv .venv-package
	for file in $(CURDIR)/dist/*.tar.gz $(CURDIR)/dist/*.whl; do \
		.venv-package/bin/python -m pip uninstall --quiet --yes torchprune-spatial && \
		.venv-package/bin/python -m pip install --quiet $$file && \
		(cd $$(mktemp -d) && $(CURDIR)/.venv-package/bin/python -I $(CURDIR)/tests/wheel_snippets.py $(CURDIR)/README.md) || exit 1; \
	done

test-all: .venv/test
	$(BIN)/pytest

docs: .venv/docs  # the site, into site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/python docs/check_links.py site

# The two generations of NNI cannot share an environment, so each has its own: .venv-nni2 and .venv-nni3. They see the
# packages of .venv behind their own, so that PyTorch is installed once. NNI needs Python 3.8 to 3.12. NNI_TESTS="" runs
# the slow tests too. Of the recipes only the search needs NNI; the others are tested in .venv.
NNI_TESTS ?= -m "not slow"

test-nni2: .venv-nni2/test-nni2
test-nni3: .venv-nni3/test-nni3
test-nni2 test-nni3: test-%:
	OMP_NUM_THREADS=1 .venv-$*/bin/python -m pytest -n auto tests/resolution_scaling/nni tests/torchprune_spatial/nni \
		tests/docs/test_nni_pages.py tests/recipes/autocompress_search tests/recipes/test_bad_weather.py \
		-k "not hologram_pruning and not criterion_study and not resnet_resolution and not vit_resolution" $(NNI_TESTS)

.venv-nni2/% .venv-nni3/%: pyproject.toml .venv/test
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
		$$($(@D)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/packages_of_venv.pth
	$(@D)/bin/python -m pip install --quiet --editable ".[$*]"
	touch $@

# One stamp file per extra: reinstalled when pyproject.toml changes.
.venv/%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	touch $@

clean:
	rm -rf .venv .venv-nni2 .venv-nni3 .venv-package dist results site
