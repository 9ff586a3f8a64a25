# The two commands of the README are `make demo` and `make test`; everything they need is installed here.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed

.PHONY: demo test lint protos envoy lock clean

demo: $(READY)
	$(BIN)/headgate demo

test: lint
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench-%: $(READY)
	$(BIN)/python -m bench.$*

bench-overload: $(VENV)/.drawing

protos: $(READY)
	$(BIN)/python protos/generate.py

envoy: $(READY)
	$(BIN)/headgate render envoy --output envoy

lock: $(READY)
	$(BIN)/uv pip compile -q pyproject.toml --extra redis --generate-hashes --no-annotate --no-header --python-version 3.11 -o requirements/runtime.txt
	$(BIN)/uv pip compile -q pyproject.toml --extra dev --extra local --generate-hashes --no-annotate --no-header --python-version 3.11 -o requirements/dev.txt
	$(BIN)/uv pip compile -q pyproject.toml --extra bench -c requirements/dev.txt --generate-hashes --no-annotate --no-header --python-version 3.11 -o requirements/bench.txt
	$(BIN)/uv pip compile -q requirements/triton.in --no-deps --generate-hashes --no-annotate --no-header --python-version 3.11 -o requirements/triton.txt

clean:
	rm -rf $(VENV) .headgate build dist

$(READY): requirements/dev.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the locked dependencies into $(VENV) (about a minute the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.drawing: $(READY) requirements/bench.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@touch $@
