# Everything below sets itself up from nothing but Python 3.11: `make test` in a fresh clone works.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
PYTEST_ARGS ?=
# Processes that share the work of the tests.
TEST_JOBS ?= 2
# Where `make demo` puts its data, runs and report.
DEMO ?= demo

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-contract test-papers check lint types contracts doctor lock clean

help: ## Show the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The hashes make the installation the same everywhere; the project itself comes last, as it is here.
$(STAMP): requirements.lock pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo 'Python 3.11 is needed. Name it: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

setup: $(STAMP) ## Make the virtual environment from requirements.lock.

demo: $(STAMP) ## Run the whole main job on simulated data, from raw events to a report.
	$(BIN)/octr demo --output $(DEMO)

# Fresh processes for each group: XLA never gives a compiled function's memory maps back, and one
# process for everything runs into the kernel's limit on them (vm.max_map_count) and dies.
test: test-fast test-contract test-papers ## Run the default test suite (PYTEST_ARGS=... adds options).

test-fast: $(STAMP) ## Run the unit, property and packaging tests.
	$(call run_tests,tests/unit tests/property tests/packaging)

test-contract: $(STAMP) ## Run the tests of every module's contract and those of whole jobs.
	$(call run_tests,tests/contract tests/integration)

test-papers: $(STAMP) ## Run the tests of the techniques and the research modules.
	$(call run_tests,tests/papers)

# Exit code 5 says that PYTEST_ARGS selects no test of the group.
run_tests = $(BIN)/pytest --numprocesses $(TEST_JOBS) --dist loadfile $(1) $(PYTEST_ARGS) || [ $$? = 5 ]

check: lint types contracts test ## Run all that a change has to pass.

lint: $(STAMP) ## Check style and formatting.
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(STAMP) ## Check the types of the four packages.
	$(BIN)/mypy

contracts: $(STAMP) ## Check who imports whom.
	$(BIN)/lint-imports --no-logo

doctor: $(STAMP) ## Check the machine and the installation.
	$(BIN)/octr doctor

lock: $(STAMP) ## Resolve the dependencies anew into requirements.lock.
	CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/pip-compile --quiet --upgrade --strip-extras \
		--extra stream --extra kafka --extra serve --extra lite --extra dp --extra test \
		--extra bench --extra dev --generate-hashes --allow-unsafe --no-emit-options \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
		--output-file requirements.lock pyproject.toml

clean: ## Remove the virtual environment, caches and build output.
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
