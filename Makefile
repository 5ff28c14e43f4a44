# What runs here is printed as it runs; `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup distill test test-slow check bench

# The first that runs: a pyenv shim can be on the PATH and still fail.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do $$p -c '' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
gpu = { [ -e /dev/nvidia0 ] || nvidia-smi >/dev/null 2>&1; }

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: ## make .venv with the fcot command (minutes the first time, at once after that)
	@[ -n "$(PYTHON)" ] || { echo "make setup: no python3 on the PATH; install Python 3.11 or newer" >&2; exit 4; }
	@$(PYTHON) fcot_lite/bootstrap.py

distill: setup ## the whole loop: the quickstart, or TASK=gsm8k [SEED=1] [EXTRA="teacher.n=8 ..."]
	@set -f; task='$(TASK)' seed='$(SEED)'; \
	if [ -z "$$task" ]; then recipe=recipes/quickstart.yaml name=quickstart set=; \
	elif ! $(gpu); then recipe=recipes/cpu.yaml name=$$task-cpu set="task.name=$$task name=$$task-cpu"; \
	elif [ -e recipes/$$task.yaml ]; then recipe=recipes/$$task.yaml name=$$task set=; \
	elif [ ! -e recipes/gpu.yaml ]; then recipe=recipes/cpu.yaml name=$$task set="task.name=$$task name=$$task"; \
	else recipe=recipes/gpu.yaml name=$$task set="task.name=$$task name=$$task"; fi; \
	if [ -n "$$seed" ]; then set="$${set%name=$$name} seed=$$seed name=$$name-seed$$seed"; fi; \
	command=$$(echo $(BIN)/fcot run $$recipe $$set $(EXTRA)); \
	echo "$$command"; exec $$command

test: setup ## every test that is not slow
	@$(BIN)/python -m pytest -m "not slow"

test-slow: setup ## real kills, memory grid, fuzz
	@$(BIN)/python -m pytest -m slow

check: setup ## format, lint, types, layers, unit tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -m "not real and not e2e and not slow"

bench: setup ## a benchmark of benchmarks/: NAME=sampling
	@[ -e "benchmarks/$(NAME).py" ] || { echo "make bench NAME=...: one of" $$(cd benchmarks && ls *.py | sed 's/\.py$$//') >&2; exit 2; }
	$(BIN)/python benchmarks/$(NAME).py
