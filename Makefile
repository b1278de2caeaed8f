# The commands to remember: make demo, make test. "make help" lists the rest.
# Written for GNU make 3.81 (the one on macOS) and newer.

VENV    ?= .venv
BIN     := $(VENV)/bin
WORKERS ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK = 1

# The first of these that is a Python we test with, or else python3 if it is at least new enough.
find_python = for p in python3 python3.13 python3.12 python3.11; do \
    "$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo "$$p"; exit; }; \
  done; echo python3
ifndef PYTHON
PYTHON := $(shell $(find_python))
endif

SCRIPTS := devboxd/boxside/programs

.PHONY: help demo test setup setup-demo check grammar programs function lint types layers scripts fmt bench soak e2e api-page policies prices picture lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.demo ## the whole product on this machine, without an account, and nothing left behind
	@$(BIN)/python -m devboxd.simulator demo

test: $(VENV)/.dev ## all fast tests; ARGS="tests/ssm -x" for some, WORKERS=4 for more at a time
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m 'not bench and not soak and not heavy and not chaos' $(ARGS)
	$(if $(ARGS),,$(BIN)/python -m pytest -m 'chaos and not soak' tests/chaos tests/lifecycle)

setup-demo: $(VENV)/.demo ## make .venv with what the product and its demo need

setup: $(VENV)/.dev ## make .venv with the test and lint tools, too

programs: $(VENV)/.dev ## make what travels to a box of the programs in devboxd/boxside/programs
	$(BIN)/python tools/programs.py

grammar: $(VENV)/.dev ## write the tables of the fast path and docs/commands.md from the commands
	$(BIN)/python tools/grammar.py

picture: $(VENV)/.dev ## film the demo's tour, and draw docs/demo.svg
	$(BIN)/python tools/picture.py

check: lint types layers scripts test ## everything that has to pass before a commit

lint: $(VENV)/.dev ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev ## mypy, strict
	$(BIN)/mypy devboxd devboxctl tests tools

layers: $(VENV)/.dev ## the import contracts
	$(BIN)/lint-imports

# Each script as it reaches the box: two with common.sh in front, three with find_python.sh. SC2034: a last variable of "read" that
# only takes up the rest of a line; SC2093: "exec" in a loop over programs, of which the first that is there goes on.
scripts: ## shellcheck of every shell script
	shellcheck .ci/run
	shellcheck -s bash devboxctl/completion/devboxctl.bash
	shellcheck -s sh -S warning -e SC2034,SC2093 \
	  $(filter-out $(addprefix %/,common.sh attach.sh relay.sh find_python.sh run_python.sh jobs.sh watch.sh),$(wildcard $(SCRIPTS)/*.sh))
	cat $(SCRIPTS)/common.sh $(SCRIPTS)/attach.sh | shellcheck -s sh -S warning -
	cat $(SCRIPTS)/common.sh $(SCRIPTS)/relay.sh | shellcheck -s sh -S warning -
	cat $(SCRIPTS)/find_python.sh $(SCRIPTS)/run_python.sh | shellcheck -s sh -S warning -
	cat $(SCRIPTS)/find_python.sh $(SCRIPTS)/jobs.sh | shellcheck -s sh -S warning -
	cat $(SCRIPTS)/find_python.sh $(SCRIPTS)/watch.sh | shellcheck -s sh -S warning -

fmt: $(VENV)/.dev ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev ## measurements; prints ratios
	$(BIN)/python -m pytest -m bench -s -p no:xdist --timeout 900 tests/bench $(ARGS)

soak: $(VENV)/.dev ## long runs with random faults
	$(BIN)/python -m pytest -m soak -s --timeout 3600 $(ARGS)

e2e: $(VENV)/.dev ## tests that need more than the machine's defaults
	$(BIN)/python -m pytest -m heavy -s --timeout 900 $(ARGS)

policies: $(VENV)/.dev ## write the policies of model/policy.py into iac/devbox.yaml
	$(BIN)/python tools/policies.py

prices: $(VENV)/.dev ## renew the prices that devbox carries with it (asks AWS); ARGS="PROFILE --write"
	$(BIN)/python tools/prices.py $(ARGS)

api-page: $(VENV)/.dev ## write the routes into docs/api.md
	$(BIN)/python tools/api_page.py

function: $(VENV)/.dev ## make the zip of the always-on reconciler, for AWS Lambda, into dist/
	$(BIN)/python tools/function.py

lock: ## renew constraints.txt and requirements.lock from pyproject.toml (needs uv)
	$(PYTHON) tools/lock.py

clean: ## remove .venv and everything that was built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# Debian ships Python without ensurepip; there "python3 -m venv" leaves half a folder behind.
$(VENV)/.demo: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: Python 3.11 or newer is needed, and $(PYTHON) is not" >&2; \
	  echo "hint: install one, then: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "error: $(PYTHON) cannot make a virtual environment (no ensurepip)" >&2; \
	    echo "hint: on Debian or Ubuntu: sudo apt install python3-venv" >&2; exit 1; }; \
	  echo "making $(VENV) with $(PYTHON)" >&2; $(PYTHON) -m venv --clear $(VENV); }
	@echo "installing devbox into $(VENV)" >&2
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[demo]'
	@touch $@

# Old pips do not know dependency groups.
$(VENV)/.dev: $(VENV)/.demo
	@echo "installing the test and lint tools into $(VENV)" >&2
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet -c constraints.txt --group test --group lint
	@touch $@
