# All commands for development and CI. They need make, Python 3.11 or newer with venv, and a package registry.

SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV ?= .venv
BIN := $(VENV)/bin
# These files record when the requirements were installed. Those of the local stack, the demo and the command line come
# first; the requirements for development include them.
LOCAL_STAMP := $(VENV)/.installed-local
STAMP := $(VENV)/.installed
# Targets that run the built functions need `sam build`.
RUN_STAMP := $(if $(BUILT),$(STAMP),$(LOCAL_STAMP))
SCANNER := .venv-checkov
SCANNER_STAMP := $(SCANNER)/.installed
EMULATOR := .venv-ministack
EMULATOR_STAMP := $(EMULATOR)/.installed
SOURCES := cli functions layers local scripts tests

# The scripts that pip installs fail if their path contains a dollar, a backquote, a quote or a backslash. Blanks work, except
# in VENV, which make would read as several names.
ifneq (,$(strip $(foreach character,$$ ` " \,$(findstring $(character),$(CURDIR)))))
$(error The path of this checkout contains one of the characters $$ ` " \, which shells interpret. Move it to another folder)
endif
ifneq (1,$(words $(VENV)))
$(error VENV contains a blank. Choose another folder: make VENV=.venv ...)
endif

# The user's settings for other Python programs must not replace modules, turn warnings into errors, or change where pip
# installs packages. The settings of a package index stay.
unexport PYTHONPATH PYTHONHOME PYTHONWARNINGS PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_NO_BINARY PIP_REQUIRE_VIRTUALENV
# Without bytecode files each process of a test run would compile all modules again, which takes half of the collection time.
unexport PYTHONDONTWRITEBYTECODE
# For commands that do not call AWS, so that they do not fail if a profile is missing or a configuration file is unreadable.
NO_AWS_SETTINGS := env -u AWS_PROFILE -u AWS_DEFAULT_PROFILE -u SAM_TEMPLATE_FILE AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null

# PYTHON=... selects an interpreter. The default prefers 3.13, as in Lambda. The shell evaluates this, because make cannot
# handle every character of a path.
FIND_PYTHON := python="$${PYTHON:-$$(scripts/find-python)}"; test -n "$$python" || { scripts/find-python --explain; exit 1; }
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --no-user --no-deps
UV_COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --upgrade
# npm verifies each package by its hash in package-lock.json. Install scripts, which the linters do not need, would run with
# the permissions of the developer.
NPM_INSTALL := command -v npm >/dev/null || \
  { echo "$(@F) is an npm package. Install Node.js 20 or newer, then try again." >&2; exit 1; }; \
  npm ci --ignore-scripts --loglevel=error --no-audit --no-fund
ASL_VALIDATOR := node_modules/.bin/asl-validator
SPECTRAL_FOLDER := .local/openapi-linter
SPECTRAL := $(SPECTRAL_FOLDER)/node_modules/.bin/spectral

.PHONY: help setup demo up replay test test-fast searches faults decoders races soak soak-self-test fuzz check lint types imports lint-state-machine lint-openapi wheel scan format build smoke bench rehearse lock clean

help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Create the environment .venv; other targets do so when they need it

$(LOCAL_STAMP): requirements-local.txt layers/catchlight/python/requirements.txt
	@$(FIND_PYTHON); echo "Installing the local stack and the command line into $(VENV), with $$python: 200 MB. This happens once."; \
	  "$$python" -m venv --clear $(VENV)
	@# --no-deps: the lock is complete, and pip 23, which comes with Python 3.11, fails to resolve extras with hashes.
	@$(BIN)/python $(PIP_INSTALL) --require-hashes -r requirements-local.txt
	@# Installs the command `catchlight`, which runs from this checkout.
	@$(BIN)/python $(PIP_INSTALL) --no-build-isolation --editable .
	@touch $@

$(STAMP): requirements-dev.txt $(LOCAL_STAMP)
	@echo "Installing the tools for builds and tests into $(VENV): 570 MB more. This happens once and takes a minute or two."
	@$(BIN)/python $(PIP_INSTALL) --require-hashes -r requirements-dev.txt
	@touch $@

# BUILT=1 runs the functions as `sam build` builds them for this machine, isolated from the sources and the environment.
demo: $(RUN_STAMP) ## Run 41 tasks through the local stack and show each outcome (BUILT=1: with the built functions)
	@$(BIN)/python -m local demo $(if $(BUILT),--built)

up: $(RUN_STAMP) ## Run the local stack until Ctrl-C (BUILT=1: with the built functions)
	@$(BIN)/python -m local up $(if $(BUILT),--built)

replay: $(LOCAL_STAMP) ## Process the stored unreadable callbacks again (STACK=name of a deployed stack; default: the local one)
	@# An empty STACK= is passed on: the command reports it, instead of using the local stack.
	@$(BIN)/catchlight replay $(if $(filter undefined,$(origin STACK)),--local,--stack-name "$(STACK)")

test: $(STAMP) ## Run all tests, offline (BUILT=1: those that run the local stack, with the built functions)
	@# In the order of the folders. By default xdist runs the files with few tests last, and these take longest.
	@$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -q $(if $(BUILT),--built)

test-fast: $(STAMP) ## Run the unit tests only, a minute
	@$(BIN)/python -m pytest -n auto --dist worksteal -q tests/unit

searches: $(STAMP) ## Run small searches, and tests that each search detects known faults; three minutes (BUILT=1)
	@$(BIN)/python -m pytest -n auto --dist worksteal -q $(if $(BUILT),--built) tests/searches

faults: $(STAMP) ## Run every order of one task's events, with a fault at every call
	@$(BIN)/python -m tests.searches.faults

decoders: $(STAMP) ## Compare the archiving of a thousand unusual image files with their decoding by Pillow and Chromium
	@$(BIN)/python -m tests.differential

races: $(STAMP) ## Run sixteen concurrent writers on each of 400 items (ENGINE=dynamodb-local: needs npm and Java)
	@$(BIN)/python -m tests.searches.races --engine $(or $(ENGINE),moto)

soak: $(STAMP) ## Run thousands of tasks under injected faults; an hour (TASKS=10000, SEED=1, BUILT=1)
	@$(BIN)/python -m tests.searches.soak --tasks $(or $(TASKS),10000) --seed $(or $(SEED),1) $(if $(BUILT),--built)

soak-self-test: $(STAMP) ## Plant known faults into the result of a soak; its checks must report each, by task and guarantee
	@$(BIN)/python -m tests.searches.soak.self_test

fuzz: $(STAMP) ## Fuzz all code that parses untrusted input (FOR=seconds, 60)
	@$(BIN)/python -m scripts.fuzz --seconds $(or $(FOR),60)

check: lint types imports ## Check format, lint, types, import directions, security, template, state machine
	$(BIN)/bandit -q -r layers/catchlight/python/catchlight functions
	$(BIN)/bandit -q -ll -r local scripts
	$(BIN)/cfn-lint template.yaml
	$(NO_AWS_SETTINGS) AWS_DEFAULT_REGION=us-east-1 SAM_CLI_TELEMETRY=0 $(BIN)/sam validate --lint --config-env none
	@$(MAKE) --no-print-directory lint-state-machine

lint: $(STAMP) ## Part of check: format and lint
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

types: $(STAMP) ## Part of check: types
	$(BIN)/mypy

imports: $(STAMP) ## Part of check: import directions
	PYTHONPATH=.:cli:layers/catchlight/python $(BIN)/lint-imports --no-cache

# Finds errors that cfn-lint and `sam validate` miss, such as a wrong Next or JSONPath.
lint-state-machine: $(ASL_VALIDATOR) ## Part of check: state machine, with an npm package
	$(ASL_VALIDATOR) $(foreach machine,$(wildcard statemachines/*.asl.yaml),--yaml-path $(machine))

$(ASL_VALIDATOR): package-lock.json
	@$(NPM_INSTALL)
	@touch $@

lint-openapi: $(SPECTRAL) ## Lint the OpenAPI documents with Spectral, an npm package; even a hint is an error
	@$(SPECTRAL) lint --ruleset scripts/openapi-linter/ruleset.yaml --fail-severity hint docs/*.openapi.yaml

$(SPECTRAL): scripts/openapi-linter/package-lock.json
	@mkdir -p $(SPECTRAL_FOLDER)
	@cp scripts/openapi-linter/package.json scripts/openapi-linter/package-lock.json $(SPECTRAL_FOLDER)
	@cd $(SPECTRAL_FOLDER); $(NPM_INSTALL)
	@touch $@

wheel: $(STAMP) ## Build the wheel and try it outside of the checkout, with each of Python 3.11, 3.12 and 3.13 that is installed
	@$(BIN)/python -m scripts.try_wheel

scan: $(STAMP) $(SCANNER_STAMP) ## Scan the template with checkov, as written and as expanded
	@$(BIN)/python -m scripts.scan

# checkov pins an old boto3, so it has its own environment.
$(SCANNER_STAMP): requirements-checkov.txt
	@$(FIND_PYTHON); echo "Installing checkov into $(SCANNER). This happens once and takes half a minute."; "$$python" -m venv --clear $(SCANNER)
	@$(SCANNER)/bin/python $(PIP_INSTALL) --require-hashes -r $<
	@touch $@

format: $(STAMP) ## Format the code and apply the automatic fixes
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

# Bytecode is valid for one version of Python. Without bytecode the functions work, but their cold starts are slower.
# The bill of materials lists the layer's dependencies for scanners of known vulnerabilities.
# SAM needs a region to read the template. It does not read samconfig.toml, where a profile would be for `sam deploy`.
build: $(STAMP) ## Build what `sam deploy` uploads, for Lambda (python3.13, arm64)
	@export RUNTIME_PYTHON="$$(scripts/find-python --exactly 3.13)" BUILD_PYTHON="$$(cd $(BIN) && pwd)/python"; \
	$(NO_AWS_SETTINGS) AWS_DEFAULT_REGION=us-east-1 SAM_CLI_TELEMETRY=0 $(BIN)/sam build --config-env none --parallel && \
	$(BIN)/python -m scripts.write_sbom .aws-sam/build/CatchlightLayer/python .aws-sam/layer.cdx.json && { test -n "$$RUNTIME_PYTHON" || \
	  echo "Built without bytecode, because Python 3.13 is not installed: every cold start will take more than twice as" \
	  "long. Install Python 3.13 and build again."; }

smoke: $(STAMP) ## Check the build: every file, and every AWS call of its functions
	@$(BIN)/python -m scripts.smoke

bench: $(STAMP) ## Measure speed and cost against their goals, and update docs/performance.md (FOR=names, all)
	@$(BIN)/python -m tests.benchmarks $(FOR)

# WITHOUT=SID leaves out one IAM statement: the rehearsal must fail then.
rehearse: $(STAMP) $(EMULATOR_STAMP) ## Rehearse deployment, updates and deletion with an AWS emulator (needs Python 3.13)
	@if [ -x $(EMULATOR)/bin/python ]; then \
	  $(BIN)/python -m scripts.rehearsal $(if $(WITHOUT),--without-grant $(WITHOUT)); \
	else \
	  echo "The rehearsal needs Python 3.13, which is not installed. Install it, then try again."; \
	fi

# MiniStack runs the functions with its own interpreter, so it needs Python 3.13. Without that version nothing is installed.
$(EMULATOR_STAMP): EMULATOR_PYTHON = $(shell scripts/find-python --exactly 3.13)
$(EMULATOR_STAMP): requirements-ministack.txt
	@if [ -n "$(EMULATOR_PYTHON)" ]; then \
	  echo "Installing MiniStack into $(EMULATOR). This happens once and takes half a minute." && \
	  "$(EMULATOR_PYTHON)" -m venv --clear $(EMULATOR) && \
	  $(EMULATOR)/bin/python $(PIP_INSTALL) --require-hashes -r $< && \
	  touch $@; \
	fi

lock: $(STAMP) ## Pin the newest compatible versions of all dependencies
	$(UV_COMPILE) --python-version 3.11 requirements-dev.in -o requirements-dev.txt
	$(UV_COMPILE) --python-version 3.11 requirements-local.in -c requirements-dev.txt -o requirements-local.txt
	$(UV_COMPILE) --python-version 3.11 --no-annotate \
	  layers/catchlight/python/requirements.in -c requirements-dev.txt -o layers/catchlight/python/requirements.txt
	$(UV_COMPILE) --python-version 3.11 requirements-checkov.in -o requirements-checkov.txt
	$(UV_COMPILE) --python-version 3.13 requirements-ministack.in -o requirements-ministack.txt

clean: ## Remove everything that the other targets have created
	rm -rf $(VENV) $(SCANNER) $(EMULATOR) node_modules .aws-sam .local dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .fuzz
	find $(SOURCES) -name __pycache__ -prune -exec rm -rf {} +
