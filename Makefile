# make help

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
ARGS ?=
WITH ?=
PROCESSES ?= 2

# Said here and not in the script, because a Python this old could not read the script.
define bootstrap
	@command -v $(PYTHON) >/dev/null || { echo "set-up failed: found no $(PYTHON); expected CPython 3.10 to 3.13; run: apt-get install python3 python3-venv, or: make $@ PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 9))' || { echo "set-up failed: found $$($(PYTHON) --version 2>&1); expected CPython 3.10 to 3.13; run: make $@ PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) tools/bootstrap.py $(foreach extra,$(1) $(WITH),--with $(extra))
endef

.PHONY: help setup demo test test-fast test-exhaustive lint lint-types format docs bench bench-perception bench-live bench-imagination bench-engines soak export data train-segmenter train-reasoner train-dynamics lock check-wheels clean distclean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 18
	@echo
	@echo "PYTHON=/path/to/python3.12   the Python to use (3.10 to 3.13)"
	@echo "ARGS='...'                   more arguments, e.g. make test ARGS='-k camera'"
	@echo "PROCESSES=2                  that share the tests of make test (each has nodes of its own; 0: in one, in order, as --pdb needs)"
	@echo "WITH='training export'       also install torch (training), and what compiles TensorRT engines (export)"
	@echo "WITH='training household'    also install household objects to measure perception and imagination with"
	@echo "WM_ROS=pip|sourced           ROS 2 from pip, or the sourced one (default: the sourced one, if there is one)"
	@echo "WM_ROS_DISTRO=kilted|jazzy   which ROS 2 from pip (default: the one in .venv, else Kilted)"

setup:  ## install everything into .venv and build the workspace
	$(call bootstrap)

demo:  ## the whole system on a simulated table; results in out/demo/
	$(call bootstrap)
	@exec .venv/bin/wm demo $(ARGS)

test:  ## all tests (ARGS="--cov --cov-report=term": with the coverage of the packages, a sixth longer)
	$(call bootstrap,test)
	@source tools/env.sh; exec python -m pytest -n $(PROCESSES) --dist loadfile $(ARGS)

test-fast:  ## tests without a ROS graph and without the slow ones
	$(call bootstrap,test)
	@source tools/env.sh; exec python -m pytest -n logical --dist loadfile -m "not ros and not slow and not exhaustive" $(ARGS)

test-exhaustive:  ## the checks that take minutes each (WITH="training export": the dynamics as a TensorRT-RTX engine)
	$(call bootstrap,test)
	@source tools/env.sh; exec python -m pytest -m exhaustive $(ARGS)

lint:  ## ruff (rules, format) and mypy
	$(call bootstrap,lint)
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@$(MAKE) lint-types

lint-types:
	@.venv/bin/mypy $(foreach p,core dynamics planning ros perception imagination sim bringup,ros2_ws/src/wm_$(p)/wm_$(p)) \
	    training export examples tools

docs:  ## the documentation as a site, with messages and Python API; results in out/docs/
	$(call bootstrap,docs)
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet
	@echo "docs: out/docs/index.html"

format:  ## let ruff format and sort what it can
	$(call bootstrap,lint)
	@.venv/bin/ruff check --fix-only -q .
	@.venv/bin/ruff format .

bench:  ## measure; results in out/bench/
	$(call bootstrap)
	@exec .venv/bin/wm bench $(ARGS)

bench-perception:  ## perception on held-out worlds, beside the aims; results in out/bench/perception.json
	$(call bootstrap,training)
	@source tools/env.sh; exec python -m benchmarks.perception $(ARGS)

bench-live:  ## perception through the live graph: household objects; results in out/bench/perception_live.json
	$(call bootstrap,training household)
	@source tools/env.sh; exec python -m benchmarks.perception.live $(ARGS)

bench-imagination:  ## imagined futures on held-out worlds, beside the aims; results in out/bench/imagination.json
	$(call bootstrap,training)
	@source tools/env.sh; exec python -m benchmarks.imagination $(ARGS)

soak:  ## growth of the nodes' memory over an hour (ARGS='--minutes 3': over 3 minutes); results in out/bench/soak.json
	$(call bootstrap)
	@source tools/env.sh; exec python -m benchmarks.soak $(ARGS)

data:  ## the simulated data set, with a picture of it; results in out/data/
	$(call bootstrap,training)
	@source tools/env.sh; python -m training.worlds.generate $(ARGS)
	@source tools/env.sh; exec python -m training.worlds.contact_sheet out/data/train

train-segmenter:  ## train the segmenter from scratch, with data, model card and ONNX
	$(call bootstrap,training)
	@source tools/env.sh; exec python -m training.segmenter.train $(ARGS)

train-reasoner:  ## train the reasoner from scratch, with data, model card and ONNX
	$(call bootstrap,training)
	@source tools/env.sh; exec python -m training.reasoner.train $(ARGS)

export:  ## models to ONNX in several precisions and to TensorRT engines, with a parity report; results in out/export/
	$(call bootstrap,training export)
	@source tools/env.sh; exec python -m export $(ARGS)

bench-engines:  ## every model on every runtime beside torch; results in out/bench/engines.json
	$(call bootstrap,training)
	@source tools/env.sh; exec python -m benchmarks.engines $(ARGS)

train-dynamics:  ## train the dynamics from scratch, with data, model card, worst cases on video and ONNX
	$(call bootstrap,training)
	@source tools/env.sh; exec python -m training.dynamics.train $(ARGS)

lock:  ## resolve requirements/ on Python 3.10 to 3.13 and write requirements/lock.txt and lock-jazzy.txt
	@$(PYTHON) tools/lock.py $(ARGS)

check-wheels:  ## ask the package index whether every locked package has a wheel for Python 3.10 to 3.13
	$(call bootstrap)
	@.venv/bin/python tools/check_wheels.py $(ARGS)

clean:  ## remove what was built and measured; .venv stays
	rm -rf ros2_ws/build ros2_ws/install ros2_ws/log out .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis

distclean: clean  ## also remove .venv
	rm -rf .venv
