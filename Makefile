# What a person types. `make` alone prints this list. Everything stays below the checkout; nothing needs root.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3.11
BIN := .venv/bin
PIP_INSTALL := install --quiet --disable-pip-version-check --no-input --progress-bar off
LOCK := $(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

KEEP ?=
DEMO_STORE ?= s3
SIZE ?=
TESTS ?= tests
PYTEST_ARGS ?= -n 2 --dist loadgroup
ACCEPT ?=
export KEEP DEMO_STORE SIZE ACCEPT

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .stamps/install  ## an environment of its own in .venv, from the hashed lock (about two minutes, once)

demo: .stamps/install $(if $(filter file,$(DEMO_STORE)),,.stamps/install-s3)  ## landing to published release with Airflow and S3 on this machine (KEEP=1, DEMO_STORE=file, SIZE=n or large)
	@exec $(BIN)/python -m infra.demo.run

test: .stamps/install .stamps/install-s3 check  ## every check and every test (TESTS=path, PYTEST_ARGS=...)
	@echo "== tests"
	@$(BIN)/pytest $(PYTEST_ARGS) $(TESTS)

prove: .stamps/install .stamps/install-s3  ## the whole of each proof: seeded kills, faults, mutations (about an hour)
	@exec $(BIN)/pytest -m long $(PYTEST_ARGS) $(TESTS)

check: .stamps/install  ## style, types, who may import whom, the recipes
	@echo "== ruff";         $(BIN)/ruff check --quiet .
	@echo "== mypy";         $(BIN)/mypy --no-error-summary
	@echo "== import rules"; $(BIN)/lint-imports --no-cache > .stamps/imports.txt || { cat .stamps/imports.txt; exit 1; }
	@echo "== recipes";      $(BIN)/tre recipe lint deid_recipes/*

golden: .stamps/install  ## which attributes of which outputs changed against the accepted ones (ACCEPT=1: accept today's)
	@exec $(BIN)/python -m infra.golden

bench: .stamps/install  ## time and memory of the engine beside a plain copy and deid; writes docs/benchmarks/engine.*
	@exec $(BIN)/python -m infra.bench

bench-scale: .stamps/install  ## CPU and memory of each step at 1,000, 10,000 and 100,000 small images; writes docs/benchmarks/scale* (BELOW=folder)
	@exec $(BIN)/python -m infra.bench_scale $(if $(BELOW),--below $(BELOW))

bench-airflow: .stamps/install  ## what Airflow costs beside the steps it runs, over 20,000 small images; writes docs/benchmarks/airflow.* (BELOW=folder)
	@exec $(BIN)/python -m infra.bench_airflow $(if $(BELOW),--below $(BELOW))

bench-tables: .stamps/install  ## a million instances through curate and validate, beside the same checks by hand in DuckDB
	@exec $(BIN)/python -m infra.bench_tables

bench-retrieve: .stamps/install  ## images received by tre listen, DCMTK's storescp and Orthanc, from the same senders; writes docs/benchmarks/retrieve.*
	@exec $(BIN)/python -m infra.bench_retrieve

bench-peers: .stamps/install .stamps/install-peers  ## other de-identifiers over the same files, in one run; writes docs/benchmarks/peers.*
	@exec $(BIN)/python -m infra.bench_peers

lock: .stamps/install  ## resolve requirements/*.txt again; pins stay unless pyproject.toml moves them
	$(LOCK) pyproject.toml --output-file requirements/run.txt
	$(LOCK) pyproject.toml --extra dev --constraint requirements/run.txt --output-file requirements/dev.txt
	$(LOCK) requirements/demo-s3.in --output-file requirements/demo-s3.txt
	$(LOCK) requirements/peers.in --output-file requirements/peers.txt

docs: .stamps/install  ## write the pages of docs/ that are drawn from the code
	@$(BIN)/python -m infra.generate_docs
	@$(BIN)/python -m infra.worked_example

clean:  ## remove what the demo and the benchmarks left; the environments stay
	rm -rf .demo .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.stamps/install: requirements/dev.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed and $(PYTHON) was not found. Give its path: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "$(PYTHON) is not Python 3.11." >&2; exit 1; }
	@mkdir -p .stamps
	@echo "install 1/4: an environment in .venv"
	@$(PYTHON) -m venv .venv
	@echo "install 2/4: $$(grep -c '==' requirements/dev.txt) packages, each checked against its hash (a minute or two)"
	@$(BIN)/python -m pip $(PIP_INSTALL) --require-hashes -r requirements/dev.txt
	@echo "install 3/4: this project"
	@$(BIN)/python -m pip $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@echo "install 4/4: compile to byte code"
	@$(BIN)/python -m compileall -q -j 0 .venv/lib pipeline >/dev/null 2>&1 || true
	@touch $@

.stamps/install-s3: requirements/demo-s3.txt
	@mkdir -p .stamps
	@echo "install-s3: an S3 server (OpenStack Swift) in .venv-s3"
	@$(PYTHON) -m venv .venv-s3
	@.venv-s3/bin/python -m pip $(PIP_INSTALL) --require-hashes -r requirements/demo-s3.txt
	@touch $@

.stamps/install-peers: requirements/peers.txt
	@mkdir -p .stamps
	@echo "install-peers: other de-identifiers in .venv-peers"
	@$(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/python -m pip $(PIP_INSTALL) --require-hashes -r requirements/peers.txt
	@touch $@

.PHONY: help install demo test prove check golden bench bench-scale bench-tables bench-airflow bench-retrieve bench-peers lock docs clean
