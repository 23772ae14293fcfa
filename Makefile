# `make demo` trains a model on real images and writes a report about it, `make test` runs the tests,
# `make lint` checks the style, `make docs` builds the documentation as a site in build/site. Each creates
# the virtual environment .venv if it does not exist.
PYTHON ?= python3
VENV ?= .venv
# Extras of pyproject.toml to install. EXTRAS=test,torch also tests .pt files.
EXTRAS ?= test
# Number of test processes. One of them needs up to 10 GB of memory, the others up to 5 GB. Some tests
# wait for processes that they start, so three processes keep two cores busy.
JOBS ?= 3
WORKDIR ?= runs/digits
BIN := $(VENV)/bin
# Pinned versions for the tested Python versions. Others get the newest that pyproject.toml allows.
SERIES = $(shell $(PYTHON) -c 'import sys; print(*sys.version_info[:2], sep="")')
CONSTRAINTS = $(addprefix -c ,$(wildcard constraints/py$(SERIES).txt))

# Without files of bytecode, every program that a target or a test starts would compile thousands of
# modules first; docs/performance/measured.md has the seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint docs clean

RUN = $(BIN)/python -m dbae_jax.main --config=configs/digits.py --workdir=$(WORKDIR)

# Compiled programs are kept for a second `make demo`. They are not in the workdir: a training that is
# killed early would leave a folder there that is no run.
demo: export JAX_COMPILATION_CACHE_DIR ?= $(abspath $(VENV))/compiled_programs
# JAX itself keeps only programs that took a second to compile.
demo: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.05
demo: $(VENV)/installed-demo
	$(RUN)
	$(RUN) --mode=train_prior
	$(RUN) --mode=evaluate --config.eval.suite=all --report
	@echo "Open $(WORKDIR)/report.html in a browser."

test: $(VENV)/installed-$(EXTRAS)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(if $(SLOW),--slow)

lint: $(VENV)/installed-$(EXTRAS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/shellcheck launch/*.sh .ci/run

# NO_MKDOCS_2_WARNING leaves out an advertisement of mkdocs-material.
docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# One stamp file per set of extras. Changes of pyproject.toml or the pinned versions reinstall.
# Python compiles what it imports; compiling all files of all packages here takes a third of the time.
$(VENV)/installed-%: pyproject.toml setup.py $(wildcard constraints/*.txt)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile $(CONSTRAINTS) -e '$(if $(filter demo,$*),.,.[$*])'
	touch $@

clean:
	rm -rf $(VENV) runs build dist *.egg-info
