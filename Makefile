# Every command of the project; `make help` explains them. The tools live in .venv, nothing else on
# the machine is changed. Two marks in .venv tell what is installed, so that a second run is quick.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
RUNTIME := .venv/.installed-runtime
TOOLS := .venv/.installed-tools
# Where `make test-compiled` tries the wheel that images and package indexes carry (see hatch_build.py).
COMPILED := .venv-compiled
DATA_PATH_TESTS := $(addprefix tests/e2e/process/test_, $(addsuffix .py, \
	aborts agent_loss hoody_expose hoody_pull hostile_bytes idle_close proxies rustunnel_tunnels tunnels))
SOURCES := wire server agent operator tests examples tools bench

# The first interpreter that is new enough; PYTHON=… chooses another one.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		&& echo "$$python" && break; done)

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(TOOLS) ## Install everything into .venv (quick when up to date)
	@echo "Ready: $(BIN)/moleport, $(BIN)/moleport-server"

.PHONY: up
up: $(RUNTIME) ## Start a server, a sample site and an agent; show their public URLs and live requests
	@exec $(BIN)/python examples/demo/run.py

.PHONY: test
test: $(TOOLS) ## Install what the tests need and run every test
	@command -v curl >/dev/null || { echo "make test: curl is missing; some tests are visitors with curl. Install it, for example: sudo apt-get install curl" >&2; exit 1; }
	@$(MAKE) chart-tools
	$(BIN)/pytest
	@$(MAKE) test-compiled

.PHONY: test-compiled
test-compiled: $(TOOLS) ## Run what touches the data path again, with the data path compiled; part of `make test`
	@if ! command -v cc >/dev/null || ! $(BIN)/python -c 'import os, sysconfig as s, sys; sys.exit(not os.path.exists(s.get_path("include") + "/Python.h"))'; then \
		echo "make test-compiled: skipped, it needs a C compiler and the headers of Python (apt-get install gcc python3-dev)"; \
	else $(MAKE) test-of-wheel; fi

.PHONY: test-of-wheel
test-of-wheel:
	@echo "Compiling the data path and installing the wheel into $(COMPILED) ..."
	@rm -rf $(COMPILED)
	@$(BIN)/python -m venv $(COMPILED)
	@$(COMPILED)/bin/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	@MOLEPORT_COMPILE=1 $(COMPILED)/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $(COMPILED)/dist .
	@$(COMPILED)/bin/python -m pip install --quiet --disable-pip-version-check --group test "$$(echo $(COMPILED)/dist/*.whl)[server]"
	$(COMPILED)/bin/python -c 'from moleport_wire.hoody import mux; from moleport_server.edge import exchange; assert mux.__file__.endswith(".so") and exchange.__file__.endswith(".so"), "the wheel is not compiled"'
	$(COMPILED)/bin/pytest -m 'not load' tests/unit/wire tests/unit/server/edge tests/unit/server/capture tests/unit/server/registry $(wildcard $(DATA_PATH_TESTS))

.PHONY: check
check: $(TOOLS) ## Format, lint, types, layers and unit tests: what every change has to pass
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest tests/unit

.PHONY: fuzz
fuzz: $(TOOLS) ## Feed every parser with garbage, for long (Ctrl-C ends it)
	$(BIN)/pytest tests/fuzz --hypothesis-profile=fuzz --timeout=0

.PHONY: bench
bench: $(RUNTIME) ## Measure beside the peers and write docs/benchmarks.md (most of an hour; ARGS='--help' for a part)
	@PYTHONPATH=bench $(BIN)/python -m moleport_bench run $(ARGS)

.PHONY: bench-programs
bench-programs: $(RUNTIME) ## Install the programs of the benchmarks' peers, and measure nothing (ARGS='--peers …' for some)
	@PYTHONPATH=bench $(BIN)/python -m moleport_bench programs $(ARGS)

.PHONY: bench-quick
bench-quick: $(RUNTIME) ## Measure beside nginx and the last recorded run (needs nginx, wrk and curl; a minute)
	@PYTHONPATH=bench $(BIN)/python -m moleport_bench quick $(ARGS)

.PHONY: scale
scale: $(TOOLS) ## Measure the operator with 5,000 and 10,000 TunnelTokens (a quarter of an hour; ARGS='--help' for less)
	@PYTHONPATH=tests $(BIN)/python tools/operator_scale.py $(ARGS)

.PHONY: format
format: $(TOOLS) ## Format the code and repair what ruff can repair
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

.PHONY: docs
docs: $(TOOLS) ## Write the reference pages and pictures that are made from the code
	$(BIN)/python -m moleport_wire.reference
	$(BIN)/python -m moleport_server.config.reference docs/reference
	$(BIN)/python -m moleport_server.metrics.reference
	$(BIN)/python -m moleport_server.edge.reference
	$(BIN)/python -m moleport_operator.reference
	$(BIN)/python -m moleport_agent.cli.reference > docs/reference/cli.md
	$(BIN)/python tools/terminal_picture.py

# CLUSTER_TESTS chooses some: a file, or -k words.
.PHONY: e2e
e2e: $(TOOLS) ## Make a real cluster with kind, install the chart and test it (Docker, Podman, or root on Debian)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group cluster
	@tests/e2e/cluster/kind/run $(BIN)/pytest $(or $(CLUSTER_TESTS),tests/e2e/cluster)

# One program with every part of Kubernetes and etcd, from their Go modules: some minutes once, and a
# cache of 5 GB that `go clean -cache -modcache` removes. Tests that need it are skipped without it.
.PHONY: kubetest
kubetest: ## Build the kube-apiserver and etcd that the tests of the operator run against (needs Go)
	@tests/e2e/cluster/kind/build-kubernetes

.PHONY: image
image: ## Build the container image with Docker or Podman (BASE_IMAGE=… BUILD_IMAGE=… for other bases)
	@image/build

# What the image is made of, with hashes. Python 3.13 on Linux is what it runs.
LOCK := $(BIN)/uv pip compile --quiet --upgrade --generate-hashes --no-annotate --python-version 3.13 --python-platform linux --custom-compile-command "make lock"

.PHONY: lock
lock: $(TOOLS) ## Pin the newest libraries that the image may use, in image/*.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group lock
	$(LOCK) --extra server --extra operator --output-file image/runtime.lock pyproject.toml
	$(LOCK) --allow-unsafe --group image --output-file image/build.lock

# helm from its Go module (two minutes once), promtool out of Debian's package; both into the user's cache, unless
# the machine has them. What cannot be had is said, and the tests that need it are skipped with a reason.
.PHONY: chart-tools
chart-tools: ## Get helm and promtool for the tests of the chart
	@tools/chart/install

.PHONY: chart
chart: $(TOOLS) chart-tools ## Write what is made from the chart: schema, README, manifests/ and golden files
	$(BIN)/python tools/chart_reference.py
	$(BIN)/python tools/chart_dashboards.py
	$(BIN)/python tools/chart_manifests.py

.PHONY: clean
clean: ## Remove .venv and everything that tools leave behind
	rm -rf .venv $(COMPILED) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage dist build
	find wire server agent operator tests examples tools -name __pycache__ -prune -exec rm -rf {} +

# pip 25.1 is the first that knows dependency groups; a new .venv may come with an older one.
$(RUNTIME): pyproject.toml
	@if [ -z "$(PYTHON)" ]; then echo "make: Python 3.11 or newer is needed; install it or name it: make PYTHON=/path/to/python3" >&2; exit 1; fi
	@if [ ! -x $(BIN)/python ]; then $(PYTHON) -m venv .venv || { rm -rf .venv; \
		echo "make: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }; fi
	@echo "Installing moleport into .venv ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[server,operator]'
	@touch $@

$(TOOLS): $(RUNTIME)
	@echo "Installing the tools for tests and checks into .venv ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev
	@touch $@
