# Everything happens in .venv, which the first target that needs it makes. A stamp file says what is installed in it.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Every worker of a test run, and every process that a test starts, would compile all modules again.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo demo-test test keyed browser integration integration-all migration agent-server recipes soak soak-long reliability lint docs sdist bench clean

help: ## show this list
	@echo "langgraph-redis-state"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## run an agent, kill it, resume it, fork it, count the bytes
	@$(BIN)/python -m demo

test: $(VENV)/.dev ## run the tests, on an embedded server
	@$(BIN)/python -m pytest tests -n auto --dist worksteal --durations=10

keyed: WHICH := $(addprefix tests/,contract history state archive)
keyed: $(VENV)/.dev ## run the contract tests and others on savers that encrypt, hide names, and make statements (10 minutes)
	@KEYED=encrypt $(BIN)/python -m pytest $(WHICH) tests/damage tests/cli -n auto --dist worksteal
	@KEYED=encrypt,names $(BIN)/python -m pytest $(WHICH) -n auto --dist worksteal
	@KEYED=encrypt,fresh $(BIN)/python -m pytest $(WHICH) -n auto --dist worksteal

demo-test: $(VENV)/.dev ## run the demo from its beginning to its end, and check what it says
	@$(BIN)/python -m pytest tests/docs/test_demo.py -m demo

browser: $(VENV)/.dev ## run the tests of the page in headless Chromium (needs chromium and chromedriver)
	@$(BIN)/python -m pytest tests/web/test_browser.py -m browser

integration: WHICH := not soak
integration: $(VENV)/.dev ## run the tests that need Docker: every supported server, Cluster, Sentinel, faults
integration-all: WHICH :=
integration-all: $(VENV)/.dev ## the same with each test on each server and each fault in each variant (an hour)

integration integration-all:
	@$(BIN)/python -c 'from testcontainers.core.docker_client import DockerClient; DockerClient().client.ping()' \
		>/dev/null 2>&1 || { echo "make integration needs a Docker engine, and none is reachable." >&2; exit 1; }
	@$(BIN)/python -m pytest integration_tests $(addprefix --ignore=integration_tests/,migration agent_server recipes) -n 2 --dist loadgroup -m "$(WHICH)" --durations=10

migration: $(VENV)/.migration ## migrate real graphs from each other saver whose package and server are here
	@$(BIN)/python -m pytest integration_tests/migration

agent-server: $(VENV)/.agent-server ## start the agent server of `langgraph dev` and drive it over HTTP (a minute; Python 3.11)
	@$(BIN)/python -m pytest integration_tests/agent_server --confcutdir=integration_tests/agent_server

recipes: $(VENV)/.recipes ## run the files of docs/recipes.md: FastAPI, Celery, a notebook, deepagents (half a minute)
	@$(BIN)/python -m pytest integration_tests/recipes --confcutdir=integration_tests/recipes

soak: $(VENV)/.dev ## run the cases that `make test` leaves out, and the tests with larger numbers
	@LGRS_SOAK=1 $(BIN)/python -m pytest tests -n auto -m "soak or longer or hypothesis"

soak-long: $(VENV)/.dev ## the same with the largest numbers: 1,000 random histories, 100 clients killed in each removal
	@LGRS_SOAK=long $(BIN)/python -m pytest tests -n auto -m "soak or longer or hypothesis"

reliability: $(VENV)/.dev ## run the fault tests in their long form, write docs/reliability.md (needs Docker)
	@$(BIN)/python -m integration_tests.faults.report

lint: $(VENV)/.dev ## ruff, ruff format, mypy --strict, zizmor and check-jsonschema (the workflows)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict langgraph_redis_state demo
	@$(BIN)/zizmor --offline --quiet .github
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml

docs: $(VENV)/.docs ## build the site in build/site; a link that leads nowhere is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

sdist: ## build the source distribution, and run tests of it where it is unpacked
	@PYTHON=$(PYTHON) integration_tests/sdist.sh

bench: $(VENV)/.bench ## measure beside other savers, write docs/benchmarks.md (ARGS=--quick: less of everything; ARGS=--help)
	@$(BIN)/python -m benchmarks $(ARGS)

clean: ## remove .venv, the demo's data and everything that was built
	@rm -rf $(VENV) .demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "Python 3.10 or newer is needed; say which one with make PYTHON=..." >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.demo: pyproject.toml $(VENV)/.made
	@echo "Installing what the demo needs, once ..."
	@$(PIP) install -e '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.made
	@echo "Installing what the tests need, once ..."
	@$(PIP) install -e '.[dev]'
	@touch $(VENV)/.demo $@

$(VENV)/.agent-server $(VENV)/.migration $(VENV)/.recipes $(VENV)/.docs: $(VENV)/.%: pyproject.toml $(VENV)/.made
	@echo "Installing what make $* needs, once ..."
	@$(PIP) install -e '.[$*]'
	@touch $@

$(VENV)/.bench: pyproject.toml $(VENV)/.made
	@echo "Installing what the benchmarks need, once ..."
	@$(PIP) install -e '.[bench]'
	@touch $@
