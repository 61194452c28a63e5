# Every target makes its own .venv and installs with plain pip; nothing else to type.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= runs/demo

.PHONY: demo test test-fast lint bench clean

demo: .venv/demo.stamp
	$(BIN)/seitpp demo --output_dir $(OUT) $(if $(IMAGES),--images $(IMAGES)) $(if $(QUICK),--quick true)

test: .venv/test.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

test-fast: .venv/test.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile -m "not slow"

lint: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: .venv/test.stamp
	for name in start loader store tokenize pretrain; do $(BIN)/python -m benchmarks.$$name || exit 1; done

.venv/demo.stamp: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	touch $@

.venv/test.stamp: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

clean:
	rm -rf .venv runs build *.egg-info
