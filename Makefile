# Two commands matter: `make demo` and `make test`; each creates what it needs from an empty clone.
#   demo       set-up, the comparison, latency, map and threshold jobs on the embedded lab, the report
#   test       checks and the whole suite            test-fast  the suite without what is slow
#   check      ruff, mypy, import-linter              setup      .venv with the pinned CPU set, rig and swift
#   rig        sglang into .venv, without what needs a GPU (Linux)
#   swift      ms-swift into .venv, without what training on a CPU does not import
#   clean      caches and demo results                distclean  .venv as well

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.pipo-installed
RIG := $(VENV)/.pipo-rig
SWIFT := $(VENV)/.pipo-swift
PIP := $(PY) -m pip --disable-pip-version-check -q
# sglang's CUDA wheels stay out on purpose, so pip need not say that they are missing.
INSTALL := $(PIP) install -c constraints-cpu.txt --no-warn-conflicts
WORKERS ?= 2
PYTEST_ARGS ?=

# Items per task (samples are 4 an item), trials, and steps a cell of the map in the demo.
DEMO_HOME ?= $(CURDIR)/.pipo-home
DEMO_OUT ?= report
DEMO_COMPARE ?= --limit 100
DEMO_LATENCY ?= --trials 5
DEMO_MAP ?= --steps 12
DEMO_ABLATE ?= --limit 50

# Only this clone's packages: nothing from the user's or the machine's Python.
unexport PYTHONPATH PYTHONHOME
export PYTHONNOUSERSITE := 1
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: help setup rig swift demo test test-fast check clean distclean

help:
	@sed -n '2,7s/^# *//p' Makefile

setup: $(STAMP) $(RIG) $(SWIFT)

$(STAMP): pyproject.toml constraints-cpu.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v >= (3, 11) or sys.exit("Python %d.%d is too old: 3.11 or newer is needed; name one with: make PYTHON=python3.11 ..." % v)'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "installing the pinned CPU set into $(VENV) (a few minutes the first time)"
	@$(INSTALL) setuptools
	@$(INSTALL) --no-build-isolation -e '.[dev]'
	@touch $@

rig: $(RIG)

# Elsewhere than on Linux there is no triton, which sglang imports; its tests are skipped there.
$(RIG): $(STAMP)
	@if test "$$(uname -s)" = Linux; then \
		echo "installing sglang without its CUDA wheels"; \
		$(INSTALL) --no-build-isolation -e '.[rig]'; \
		$(INSTALL) --no-deps --only-binary sglang sglang; \
	else \
		echo "sglang is left out: it runs on Linux only"; \
	fi
	@touch $@

swift: $(SWIFT)

# After the rig: two pips at a time in one environment get in each other's way.
$(SWIFT): $(STAMP) $(RIG)
	@echo "installing ms-swift with what it imports on a CPU"
	@$(INSTALL) --no-build-isolation -e '.[swift-cpu]'
	@$(INSTALL) --no-deps --only-binary ms-swift ms-swift
	@touch $@

check: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

test: $(RIG) $(SWIFT) check
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --dist loadgroup $(PYTEST_ARGS)

test-fast: $(STAMP) $(RIG) $(SWIFT)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --dist loadgroup -m "not slow" $(PYTEST_ARGS)

# One shell, so that the daemon goes down whatever fails.
demo: export PIPO_HOME := $(DEMO_HOME)
demo: $(STAMP)
	@pipo=$(VENV)/bin/pipo; \
	trap '$$pipo down >/dev/null 2>&1 || true' EXIT; \
	$$pipo bench compare $(DEMO_COMPARE); \
	$$pipo bench latency $(DEMO_LATENCY); \
	$$pipo bench map $(DEMO_MAP); \
	$$pipo ablate threshold $(DEMO_ABLATE); \
	$$pipo report --out $(DEMO_OUT); \
	echo "report: $(CURDIR)/$(DEMO_OUT)/report.html, report.md ($$((SECONDS / 60)) min $$((SECONDS % 60)) s after installation)"

clean:
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist *.egg-info report .pipo-home
	find ablations bench pipo pipod reports tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
