# Every target says what it does; none asks a question, and nothing is written outside this folder but pip's own cache.
# Override with `make test PYTHON=python3.12 WORKERS=4 ARGS='-k journal'`.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

# The first Python of at least 3.11; constraints.txt was made with 3.11, so that one is preferred.
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(shell $(p) -c 'import sys; print("$(p)" if sys.version_info >= (3, 11) else "")' 2>/dev/null)))
VENV ?= .venv
WORKERS ?= 2
ARGS ?=
STORM_SECONDS ?= 600
STORM_SEED ?=

BIN := $(VENV)/bin
# Finds in $(VENV) what it does not hold itself.
OLDER := $(VENV)/older
# Set-up is done once for each content of these files: the stamp bears its checksum. The last ones build the native kernel.
SUM := $(shell cat pyproject.toml constraints.txt hatch_build.py src/tracer/capture/native/*.[ch] | cksum | tr ' ' '-')
READY := $(VENV)/.ready-$(SUM)
BENCH_READY := $(VENV)/.bench-ready-$(SUM)

.PHONY: help setup demo test check fix docs bench storm changelog constraints clean

help:  ## Show what each target does.
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: $(READY)  ## Make .venv with everything the tests, the checks and the docs need; done once, then instant.
	@echo "Set up: $(VENV) fits pyproject.toml and constraints.txt."

$(READY): | $(BIN)/pip
	@echo "Setting up: installing PyTorch 2.13.0 and the development tools into $(VENV), as constraints.txt pins them."
	echo "The first time takes some minutes; pip keeps what it downloads, so a second time is fast."
	pip() { $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-input --constraint constraints.txt "$$@"; }
	pip pip
	pip torch
	pip --group build
	pip --no-build-isolation --group dev --editable '.[all]'
	echo "Setting up $(OLDER): the older versions of Lightning and transformers that the tests run beside the newest."
	$(BIN)/python -m venv --clear --without-pip $(OLDER)
	$(BIN)/python -c 'import site, os; print(*site.getsitepackages(), os.path.abspath("src"), sep="\n")' >newer.pth
	mv newer.pth $(OLDER)/lib/python3.*/site-packages/
	$(BIN)/python -m pip --python $(OLDER)/bin/python --disable-pip-version-check install --quiet --no-input --group older
	rm -f $(VENV)/.ready-*
	touch $@

# A new venv; on Debian and Ubuntu the module that makes one is a package of its own.
$(BIN)/pip:
	@if [ -z "$(PYTHON)" ]; then
	    echo "Tracer needs Python 3.11 or newer, and none was found; name one with: make PYTHON=/path/to/python3" >&2
	    exit 1
	fi
	if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then
	    package="python$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	        echo "This Python cannot make a virtual environment yet; installing $$package with apt-get."
	        apt-get update -qq
	        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$$package"
	    else
	        echo "This Python cannot make a virtual environment; on Debian or Ubuntu run: sudo apt-get install $$package" >&2
	        exit 1
	    fi
	fi
	echo "Making the virtual environment $(VENV) with $$($(PYTHON) --version)."
	$(PYTHON) -m venv $(VENV)

demo: setup  ## Train a small character transformer on the CPU, recorded, then show what Tracer found.
	@$(BIN)/python examples/demo.py

test: setup  ## Run every test, in WORKERS processes; ARGS goes to pytest.
	@$(BIN)/python -m pytest -n $(WORKERS) tests $(ARGS)

check: setup  ## Check format, lint, types, who imports whom, and that the docs are fresh and build.
	@set -x
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict src tests/typing
	$(BIN)/lint-imports --no-cache
	$(BIN)/python docs/generate.py --check
	$(BIN)/zensical build --strict --clean

fix: setup  ## Mend what can be mended: format, lint, generated docs.
	@$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python docs/generate.py

docs: setup  ## Build the documentation into site/.
	@$(BIN)/python docs/generate.py
	$(BIN)/zensical build --strict --clean
	echo "Built: open site/index.html in a browser."

$(BENCH_READY): $(READY)
	@echo "Installing the peers that the benchmarks measure beside us: TensorBoard, wandb, trackio."
	$(BIN)/python -m pip --disable-pip-version-check install --quiet --no-input --constraint constraints.txt --group bench
	rm -f $(VENV)/.bench-ready-*
	touch $@

bench: setup $(BENCH_READY)  ## Measure Tracer beside its peers and write the tables of docs/performance.md.
	@$(BIN)/python benchmarks/run.py $(ARGS)

storm: setup  ## Run the storm tests long: random kills, competing maintainers, STORM_SECONDS each.
	@TRACER_STORM_SECONDS=$(STORM_SECONDS) TRACER_STORM_SEED=$(STORM_SEED) \
	    $(BIN)/python -m pytest -m storm -s -o timeout=0 tests $(ARGS)

changelog: setup  ## Move the fragments of changelog.d/ into CHANGELOG.md, under the version of the package.
	@$(BIN)/towncrier build --yes

constraints: setup $(BENCH_READY)  ## Write constraints.txt from what .venv holds now.
	@{
	    echo '# Every package of the development set-up, at the version the tests were last run with.'
	    echo '# Made with `make constraints`; `make setup` and `make bench` install by it.'
	    $(BIN)/python -m pip freeze --all --exclude-editable | grep -v '^ml-tracer' | sed -E 's/^torch( @|==).*/torch==2.13.0/'
	} >constraints.new
	mv constraints.new constraints.txt

clean:  ## Remove what the targets made: .venv, site, caches.
	@rm -rf $(VENV) site dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
