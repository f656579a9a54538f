# SPDX-License-Identifier: Apache-2.0
# Sets up .venv and runs things in it. With a sourced ROS 2 (AMENT_PREFIX_PATH) that ROS is used; without one, ROS 2
# comes from Python wheels. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := $(CURDIR)/.venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TESTED := $(VENV)/.installed_for_tests
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# The same rule as in setup.py: a Python environment with the wheels is not a sourced ROS.
SOURCED := $(strip $(foreach prefix,$(subst :, ,$(AMENT_PREFIX_PATH)), \
             $(if $(wildcard $(prefix)/pyvenv.cfg),,$(prefix))))
# Which Python will do, and what to say where none does.
ifdef SOURCED
KIND := ros $(ROS_DISTRO)
USABLE := import sys, rclpy; sys.exit(sys.version_info < (3, 10))
NO_PYTHON := no python3 (3.10 or newer) imports the rclpy of the sourced ROS 2 ($(SOURCED))
else
KIND := wheels
USABLE := import sys; sys.exit(sys.implementation.name != "cpython" or not (3, 10) <= sys.version_info[:2] <= (3, 13))
NO_PYTHON := CPython 3.10 to 3.13 is missing: install one, or install ROS 2 from apt and source its setup.bash
endif
PYTHONS := python3 python3.12 python3.11 python3.10 python3.13

LIBRARIES := $(VENV)/lib$(if $(LD_LIBRARY_PATH),:$(LD_LIBRARY_PATH))
PREFIXES := $(VENV)$(if $(SOURCED),:$(AMENT_PREFIX_PATH))
RUN = PATH="$(BIN):$$PATH" AMENT_PREFIX_PATH="$(PREFIXES)" $(if $(SOURCED),LD_LIBRARY_PATH="$(LIBRARIES)") \
      RMW_IMPLEMENTATION="$${RMW_IMPLEMENTATION:-rmw_fastrtps_cpp}" \
      ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST $(if $(filter humble,$(ROS_DISTRO)),ROS_LOCALHOST_ONLY=1)

.PHONY: help venv demo test test-faults lint figures clean check

# Tests share out the cores; what is slow in them waits.
WORKERS ?= $(shell nproc 2>/dev/null || echo 2)

help:  ## say what there is (default)
	@sed -n 's/^\([a-z-]*\):.*## /make \1	/p' Makefile

venv: $(STAMP)  ## set up .venv: what the node needs, and this package with its messages, editable

demo: $(STAMP)  ## track the demo clip; look at demo_out/
	$(RUN) maskrnn demo --out demo_out

test: $(TESTED)  ## run the tests; make test ARGS="-k name" runs some
	$(RUN) ROS_DOMAIN_ID="$${ROS_DOMAIN_ID:-$$((RANDOM % 100 + 1))}" python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

test-faults: $(TESTED)  ## run the long tests of faults: kills under load, workers that hang, 10,000 fuzzed messages
	$(RUN) ROS_DOMAIN_ID="$${ROS_DOMAIN_ID:-$$((RANDOM % 100 + 1))}" python -m pytest -m faults $(ARGS)

lint: $(TESTED)  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict

figures: $(TESTED)  ## measure the figures of the docs anew, see scripts/figures.sh
	$(RUN) DATA="$(DATA)" OUT="$(OUT)" ONLY="$(ONLY)" LONG="$(LONG)" scripts/figures.sh

clean:  ## remove .venv and all that was built
	rm -rf .venv build dist install log demo_out figures_out .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What an earlier `make` installed must be of the kind that is wanted now: wheels and a ROS from apt do not mix.
check:
	@if [ -e $(STAMP) ] && [ "$$(cat $(STAMP))" != "$(KIND)" ]; then \
	  echo "make: .venv was made for '$$(cat $(STAMP))', now there is '$(KIND)': run 'make clean' first" >&2; \
	  exit 1; \
	fi

# The first for the node, the second with torch and what else tests, training and a GPU need.
$(TESTED): EXTRAS := [test]
$(STAMP) $(TESTED): Makefile pyproject.toml setup.py CMakeLists.txt package.xml $(wildcard cmake/* msg/* srv/* scripts/* config/* launch/*) | check
	@if [ -z "$(SOURCED)" ] && [ "$$(uname -sm)" != "Linux x86_64" ]; then \
	  echo "make: the ROS 2 wheels are for Linux x86_64: install ROS 2 from apt, source its setup.bash, make again" >&2; \
	  exit 1; \
	fi
	@for tool in gcc g++; do \
	  command -v $$tool >/dev/null || { echo "make: install $$tool" >&2; exit 1; }; \
	done
	@if ! [ -x $(BIN)/pip ]; then \
	  for python in $(PYTHONS); do \
	    if $$python -c '$(USABLE)' 2>/dev/null; then found=$$python; break; fi; \
	  done; \
	  [ -n "$${found:-}" ] || { echo "make: $(NO_PYTHON)" >&2; exit 1; }; \
	  $$found -c 'import ensurepip, venv' 2>/dev/null || { echo "make: install python3-venv" >&2; exit 1; }; \
	  $$found -m venv $(if $(SOURCED),--system-site-packages) $(VENV); \
	fi
	@echo "setting up .venv, ROS 2 from $(or $(SOURCED),Python wheels); the first time downloads $(if $(EXTRAS),some GB (torch),some hundred MB)"
	@rm -f $@
ifdef SOURCED
	@# The messages of the sourced ROS are compiled for its NumPy: keep that one.
	@$(BIN)/python -c 'import numpy; print("numpy==" + numpy.__version__)' > $(VENV)/constraints.txt
	@$(PIP) install 'setuptools>=77,<80' wheel
	@command -v cmake >/dev/null || $(PIP) install 'cmake>=3.22,<4'
else
	@: > $(VENV)/constraints.txt
	@$(PIP) install 'setuptools>=77,<80' wheel -r cmake/ros_wheels_build.txt
endif
	@MASKRNN_ROS_BUILD_DIR=$(VENV)/build $(PIP) install -c $(VENV)/constraints.txt --no-build-isolation -e '.$(EXTRAS)'
	@echo "$(KIND)" > $(STAMP) && cp $(STAMP) $@.made && mv $@.made $@
