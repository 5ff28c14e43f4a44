# What runs here is printed as it runs; `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup distill test test-slow lint check bench

# The first that runs: a pyenv shim can be on the PATH and still fail.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do $$p -c '' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
# NAME=value as one word for the shell, whatever quotes the value holds.
quoted = '$(1)=$(subst ','\'',$($(1)))'

# What `make distill` takes, and whatever else stands on the command line, so that TASKS= is refused and not ignored.
words_known := TASK TEACHER STUDENT N METHOD LIMIT SEED EXTRA
words_given := $(filter-out PYTHON BIN MAKE% -%,$(foreach v,$(.VARIABLES),$(if $(findstring command line,$(origin $v)),$v)))

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: ## make .venv with the fcot command (minutes the first time, at once after that)
	@[ -n "$(PYTHON)" ] || { echo "make setup: no python3 on the PATH; install Python 3.11 or newer" >&2; exit 4; }
	@$(PYTHON) fcot_lite/bootstrap.py

distill: setup ## the whole loop: the quickstart, or TASK=gsm8k [TEACHER= STUDENT= N= METHOD= LIMIT= SEED= EXTRA=]
	@exec $(BIN)/python -m fcot_lite.distill $(foreach word,$(sort $(words_known) $(words_given)),$(call quoted,$(word)))

test: setup ## every test that is not slow
	@$(BIN)/python -m pytest -m "not slow"

test-slow: setup ## real kills, memory grid, fuzz
	@$(BIN)/python -m pytest -m slow

lint: setup ## format, lint, types, layers
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint ## the same and the unit tests
	$(BIN)/python -m pytest -m "not real and not e2e and not slow"

bench: ## a benchmark of benchmarks/: NAME=sampling
	@[ -e "benchmarks/$(NAME).py" ] || { echo "make bench NAME=...: one of" $$(cd benchmarks && ls *.py | sed 's/\.py$$//') >&2; exit 2; }
	@$(MAKE) --no-print-directory setup
	$(BIN)/python benchmarks/$(NAME).py
