# Every target but test-gpu makes its own .venv and installs with plain pip; nothing else to type.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= runs/demo

.PHONY: demo test test-fast test-gpu wheels lint bench docs clean

demo: .venv/demo.stamp
	$(BIN)/seitpp demo --output_dir $(OUT) $(if $(IMAGES),--images $(IMAGES)) $(if $(QUICK),--quick true)

test: .venv/test.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

test-fast: .venv/test.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile -m "not slow"

# On the GPU, with the packages of $(PYTHON) and what `make wheels` has left for a machine without a network. There
# versions are as they are, so warnings of libraries are no errors.
test-gpu:
	site=$$(mktemp -d) && trap 'rm -rf "$$site"' EXIT && \
	if ls .wheels/*.whl >/dev/null 2>&1; then \
		$(PYTHON) -m pip install --quiet --no-index --no-deps --no-compile --target "$$site" .wheels/*.whl; \
	fi && \
	PYTHONPATH="$$site$${PYTHONPATH:+:$$PYTHONPATH}" $(PYTHON) -m pytest -W default tests/gpu

# What the lent machine's image lacks of what the tests import; nothing in it is compiled.
wheels: | .venv/bin/python
	rm -rf .wheels
	$(BIN)/python -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
		--platform manylinux_2_28_x86_64 --dest .wheels \
		dacite diffusers importlib-metadata lazy-importer jsonargparse docstring-parser typeshed-client

lint: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

bench: .venv/test.stamp
	for name in start loader store coding tokenize pretrain finetune probe segmentation downstream; do $(BIN)/python -m benchmarks.$$name || exit 1; done

# The documentation as a site, into site/; a broken link ends it (with --quiet, mkdocs would not count it).
docs: .venv/docs.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.venv/demo.stamp: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	touch $@

.venv/test.stamp: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

.venv/docs.stamp: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

clean:
	rm -rf .venv .wheels runs site build *.egg-info
