# `make help` lists the targets. Needed: Linux, Python 3.11 or newer, make. Everything else is installed into .venv.
SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
export PYTHON

.PHONY: help demo install triton names test check lint types contracts bench soak fuzz lock clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | awk -F'\t' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: ## run the whole pipeline once: sample requests in, outcomes, a receipt and evidence out
	@tools/environment.sh run
	@tools/environment.sh triton
	@$(BIN)/waybill dev --requests config/requests.jsonl --until-done

install: ## make the environments for developing
	@tools/environment.sh dev
	@tools/environment.sh triton
	@tools/environment.sh names

names: ## make anew the environment that finds names of people and places
	@rm -rf .venv-names
	@tools/environment.sh names

triton: ## make Triton's environment anew
	@rm -rf .venv-triton
	@tools/environment.sh triton

# A third process works while the other two wait for a broker.
SUITE := -q -m "not soak" -n 3 --dist loadfile --no-loadscope-reorder

test: install ## run the test suite
	@$(PYTEST) $(SUITE)

check: install lint types contracts ## what CI runs: lint, types, import contracts, tests
	@$(PYTEST) $(SUITE)

lint: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: install
	@$(BIN)/mypy

contracts: install
	@$(BIN)/lint-imports

bench: install ## measure throughput, latency and the sink on this machine
	@$(BIN)/python -m bench

soak: install ## the long tests
	@$(PYTEST) -q -m soak --timeout 7200

fuzz: install ## the property tests with many more examples, and 100,000 records on the topics of Apache Kafka
	@PYTHONPATH=tests/support $(PYTEST) -q -p fuzz_profile -m "not soak and not kafka and not triton" --timeout 3600
	@FUZZ_RECORDS=100000 FUZZ_SEED=$${FUZZ_SEED:-$$$$} $(PYTEST) -q -s tests/e2e/test_anything_on_any_topic.py

lock: install ## pin every dependency anew, with hashes
	@$(BIN)/pip-compile -q --upgrade $(LOCK) -o requirements.lock pyproject.toml
	@$(BIN)/pip-compile -q --upgrade $(LOCK) --extra dev -c requirements.lock -o requirements-dev.lock pyproject.toml
LOCK := --generate-hashes --no-emit-index-url --no-emit-find-links --strip-extras --allow-unsafe

clean: ## remove what runs and tools have written; the environments stay
	@rm -rf .waybill .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	@find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
