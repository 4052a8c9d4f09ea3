# `make demo` and `make test` set up all they need in .venv from nothing but Python 3.11 and gcc.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# What compiling alone needs.
BARE := $(VENV)/.bare
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable

.PHONY: demo test lint types golden clean

$(BARE): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) .
	touch $@

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) '.[test]'
	touch $@ $(BARE)

demo: $(BARE)
	$(BIN)/compile examples/ppocr_cls.onnx --target ane --shape x=1,3,48,192 -o build/ppocr_cls.mlpackage

test: $(STAMP)
	$(BIN)/python -m pytest -n auto

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

golden: $(STAMP)
	$(BIN)/python -m pytest tests/golden --update-golden

clean:
	rm -rf $(VENV) build *.egg-info
