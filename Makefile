# Everything a person or CI calls. Needs make, a Python (3.11 or newer) that can make virtual environments, and a package registry.

SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV ?= .venv
BIN := $(VENV)/bin
# What the environment was made from: it is made anew when a lock changes.
STAMP := $(VENV)/.installed
LOCKS := requirements-dev.txt layers/catchlight/python/requirements.txt
SCANNER := .venv-checkov
SCANNER_STAMP := $(SCANNER)/.installed
EMULATOR := .venv-ministack
EMULATOR_STAMP := $(EMULATOR)/.installed
SOURCES := cli functions layers local scripts tests

# A dollar, a backquote, a quote or a backslash in the path would be run or lost by the scripts that pip installs. Blanks are
# fine, but not in VENV: make reads them as several names.
ifneq (,$(strip $(foreach character,$$ ` " \,$(findstring $(character),$(CURDIR)))))
$(error The path of this checkout has one of the characters $$ ` " \ in it, which shells read. Move it to another folder)
endif
ifneq (1,$(words $(VENV)))
$(error VENV has blanks in it. Choose a folder without: make VENV=.venv ...)
endif

# Another program's modules must not take the place of ours, nor its warnings end us; and pip must not write elsewhere. Its
# settings of a package index stay.
unexport PYTHONPATH PYTHONHOME PYTHONWARNINGS PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_NO_BINARY PIP_REQUIRE_VIRTUALENV
# For what asks nothing of AWS: a profile that does not exist or a file that cannot be read must not stop it.
NO_AWS_SETTINGS := env -u AWS_PROFILE -u AWS_DEFAULT_PROFILE -u SAM_TEMPLATE_FILE AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null

# PYTHON=... picks an interpreter; else the best that works: 3.13 as in Lambda, then its neighbours. In the shell, where a
# path may have any character.
FIND_PYTHON := python="$${PYTHON:-$$(scripts/find-python)}"; test -n "$$python" || { scripts/find-python --explain; exit 1; }
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --no-user --no-deps

.PHONY: help setup demo up replay test faults races soak fuzz check lint types imports scan format build smoke bench rehearse lock clean

help: ## This list
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## The environment that all the others need; they make it themselves

$(STAMP): $(LOCKS)
	@$(FIND_PYTHON); echo "Installing what is needed into $(VENV), with $$python. Once; a minute or two."; \
	  "$$python" -m venv --clear $(VENV)
	@# The lock is complete: nothing to resolve. pip 23, which comes with Python 3.11, would stumble over extras and hashes.
	@$(BIN)/python $(PIP_INSTALL) --require-hashes -r requirements-dev.txt
	@# `catchlight`, the command line, as it is in this checkout.
	@$(BIN)/python $(PIP_INSTALL) --no-build-isolation --editable .
	@touch $@

# BUILT=1: the functions run as `sam build` makes them for this machine, with nothing else to import.
demo: $(STAMP) ## The whole pipeline on this machine, with a table of what became of every task (BUILT=1: the built functions)
	@$(BIN)/python -m local demo $(if $(BUILT),--built)

up: $(STAMP) ## The local stack, until Ctrl-C (BUILT=1: with the built functions)
	@$(BIN)/python -m local up $(if $(BUILT),--built)

replay: $(STAMP) ## Deliveries that could not be read, once more (STACK=name of a deployed stack; else the local one)
	@# Given and empty is no stack, and not the local one: the command says so.
	@$(BIN)/catchlight replay $(if $(filter undefined,$(origin STACK)),--local,--stack-name "$(STACK)")

test: $(STAMP) ## All tests, offline (BUILT=1: those that run the local stack, with the built functions)
	@$(BIN)/python -m pytest -n auto --dist loadfile -q $(if $(BUILT),--built)

faults: $(STAMP) ## Every order of events of one task, every fault at every call, counted
	@$(BIN)/python -m tests.faults

races: $(STAMP) ## Sixteen writers at each of 400 items: one winner each (ENGINE=dynamodb-local: at AWS's own, by npm and Java)
	@$(BIN)/python -m tests.races --engine $(or $(ENGINE),moto)

soak: $(STAMP) ## Thousands of tasks in a storm of faults, and what became of each (TASKS=10000, SEED=1, BUILT=1); 20 minutes
	@$(BIN)/python -m tests.soak --tasks $(or $(TASKS),10000) --seed $(or $(SEED),1) $(if $(BUILT),--built)

fuzz: $(STAMP) ## Hostile input for everything that reads it (FOR=seconds, 60)
	@$(BIN)/python -m scripts.fuzz --seconds $(or $(FOR),60)

check: lint types imports ## Format, lint, types, import directions, security, template, state machine
	$(BIN)/bandit -q -r layers/catchlight/python/catchlight functions
	$(BIN)/bandit -q -ll -r local scripts
	$(BIN)/cfn-lint template.yaml
	$(NO_AWS_SETTINGS) AWS_DEFAULT_REGION=us-east-1 SAM_CLI_TELEMETRY=0 $(BIN)/sam validate --lint --config-env none
	$(BIN)/python -m scripts.lint_state_machine

lint: $(STAMP) ## Of check: format and lint
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

types: $(STAMP) ## Of check: types
	$(BIN)/mypy

imports: $(STAMP) ## Of check: import directions
	PYTHONPATH=.:cli:layers/catchlight/python $(BIN)/lint-imports --no-cache

scan: $(STAMP) $(SCANNER_STAMP) ## checkov over the template, as it is written and as CloudFormation gets it
	@$(BIN)/python -m scripts.scan

# checkov pins an old boto3: it has an environment of its own.
$(SCANNER_STAMP): requirements-checkov.txt
	@$(FIND_PYTHON); echo "Installing checkov into $(SCANNER). Once; half a minute."; "$$python" -m venv --clear $(SCANNER)
	@$(SCANNER)/bin/python $(PIP_INSTALL) --require-hashes -r $<
	@touch $@

format: $(STAMP) ## Format and fix what can be fixed
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

# Bytecode is good for one version of Python. Without that one here the functions work, and start slower.
# SAM needs a region to read the template. It does not read samconfig.toml: a profile there is for `sam deploy`.
build: $(STAMP) ## What `sam deploy` uploads, for Lambda: python3.13, arm64
	@export RUNTIME_PYTHON="$$(scripts/find-python --exactly 3.13)" BUILD_PYTHON="$$(cd $(BIN) && pwd)/python"; \
	$(NO_AWS_SETTINGS) AWS_DEFAULT_REGION=us-east-1 SAM_CLI_TELEMETRY=0 $(BIN)/sam build --config-env none --parallel && { test -n "$$RUNTIME_PYTHON" || \
	  echo "Built without bytecode, because there is no Python 3.13 here: every cold start will take more than twice as" \
	  "long. Install one and build again."; }

smoke: $(STAMP) ## Every file of the artefact as it should be, every call that its functions make to AWS
	@$(BIN)/python -m scripts.smoke

bench: $(STAMP) ## How fast and how dear it is, beside its goals: a table, docs/performance.md, pictures (FOR=names, all)
	@$(BIN)/python -m tests.benchmarks $(FOR)

# WITHOUT=SID leaves out one IAM statement: it has to fail then.
rehearse: $(STAMP) $(EMULATOR_STAMP) ## sam deploy to an AWS on this machine, tasks through it, updates, deletion (needs Python 3.13)
	@if [ -x $(EMULATOR)/bin/python ]; then \
	  $(BIN)/python -m scripts.rehearsal $(if $(WITHOUT),--without-grant $(WITHOUT)); \
	else \
	  echo "The deployment is not rehearsed: that needs a Python 3.13, and there is none here. Install one, then try again."; \
	fi

# MiniStack runs functions on its own interpreter, so it needs Lambda's. Without one nothing is made.
$(EMULATOR_STAMP): EMULATOR_PYTHON = $(shell scripts/find-python --exactly 3.13)
$(EMULATOR_STAMP): requirements-ministack.txt
	@if [ -n "$(EMULATOR_PYTHON)" ]; then \
	  echo "Installing MiniStack into $(EMULATOR). Once; half a minute." && \
	  "$(EMULATOR_PYTHON)" -m venv --clear $(EMULATOR) && \
	  $(EMULATOR)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $< && \
	  touch $@; \
	fi

lock: $(STAMP) ## Pin the newest versions that fit each other
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --upgrade \
	  requirements-dev.in -o requirements-dev.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade \
	  layers/catchlight/python/requirements.in -c requirements-dev.txt -o layers/catchlight/python/requirements.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --upgrade \
	  requirements-checkov.in -o requirements-checkov.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.13 --generate-hashes --no-header --upgrade \
	  requirements-ministack.in -o requirements-ministack.txt

clean: ## Remove everything that was made
	rm -rf $(VENV) $(SCANNER) $(EMULATOR) node_modules .aws-sam .local .mypy_cache .pytest_cache .ruff_cache .hypothesis .fuzz
