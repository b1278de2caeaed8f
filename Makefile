# The commands to remember: make demo, make test. The rest is for people who change the code.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
WORKERS ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test setup setup-demo check lint types layers fmt bench soak e2e clean

$(VENV)/.demo: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed; try: make demo PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "hint: on Debian or Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet -c constraints.txt --group test --group lint
	@touch $@

setup-demo: $(VENV)/.demo
setup: $(VENV)/.dev

demo: $(VENV)/.demo
	@$(BIN)/python -m devboxd.simulator demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m 'not bench and not soak and not heavy' $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy devboxd devboxctl tests

layers: $(VENV)/.dev
	$(BIN)/lint-imports

fmt: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint types layers test

bench: $(VENV)/.dev
	$(BIN)/python -m pytest -m bench -s -p no:xdist --timeout 900 tests/bench $(ARGS)

soak: $(VENV)/.dev
	$(BIN)/python -m pytest -m soak -s --timeout 3600 $(ARGS)

e2e: $(VENV)/.dev
	$(BIN)/python -m pytest -m heavy -s --timeout 900 $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
