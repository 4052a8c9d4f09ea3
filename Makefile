# `make demo` and `make test` set up all they need in .venv from nothing but Python 3.11 and gcc.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint types golden clean

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

demo: $(STAMP)
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
