# `make demo` and `make test` are all the set-up there is: both build .venv first and only when something changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := moehub experts router merge tests benchmarks
DEMO_OUTPUT ?= demo-output

# The names of our modules: a new file must be linked into the strict editable install.
MODULES := $(shell find moehub experts router merge -name '*.py' -o -name '*.j2' -o -name '*.cpp' -o -name '*.h' | LC_ALL=C sort | cksum | cut -d' ' -f1)

# Seconds for which each target of tests/fuzz is fuzzed.
FUZZ_SECONDS ?= 300

# Versions of the Hugging Face client that people have, each in an environment of its own.
CLIENTS := 0.36 1.19 2.4
ENVIRONMENTS := $(VENV)/clients

# MegaBlocks pins another torch: it lies in a folder of its own, and its tests find it there.
MEGABLOCKS := $(VENV)/megablocks

.PHONY: demo test nightly clients fuzz stories lint types check-format format clean

demo: $(VENV)/linked-$(MODULES)
	$(BIN)/moehub demo --output $(DEMO_OUTPUT)

test: lint types $(VENV)/linked-$(MODULES) $(MEGABLOCKS)/ready
	PYTHONPATH=$(CURDIR)/$(MEGABLOCKS) $(BIN)/python -m pytest -n 2 --dist loadfile

# Its Python alone: installed, it would build its extension wherever torch has CUDA (docs/backends.md has the rest).
$(MEGABLOCKS)/ready: $(VENV)/dependencies
	rm -rf $(MEGABLOCKS)
	$(BIN)/pip install -qq --no-deps --no-build-isolation --target $(MEGABLOCKS) stanford-stk==0.7.1
	TORCH_CUDA_ARCH_LIST=9.0 $(BIN)/pip download -qq --no-deps --no-build-isolation --no-binary megablocks \
		--dest $(MEGABLOCKS) megablocks==0.10.0
	tar -xzf $(MEGABLOCKS)/megablocks-0.10.0.tar.gz -C $(MEGABLOCKS) --strip-components 1 megablocks-0.10.0/megablocks
	touch $@

# What takes too long for every change.
nightly: clients fuzz stories

clients: $(VENV)/linked-$(MODULES) $(CLIENTS:%=$(ENVIRONMENTS)/%/ready)
	MOEHUB_CLIENTS=$(ENVIRONMENTS) $(BIN)/python -m pytest -rA tests/hubserver/matrix

$(ENVIRONMENTS)/%/ready:
	$(PYTHON) -m venv $(ENVIRONMENTS)/$*
	$(ENVIRONMENTS)/$*/bin/pip install -qq 'huggingface_hub~=$*.0' 'hf_xet>=1.8,<1.9'
	touch $@

stories: $(VENV)/linked-$(MODULES)
	MOEHUB_NIGHTLY=1 $(BIN)/python -m pytest tests/hubserver/test_model.py tests/hubserver/test_killed.py

fuzz: $(VENV)/linked-$(MODULES)
	$(BIN)/pip install -qq --constraint constraints.txt atheris
	set -e; for target in $$($(BIN)/python -m tests.fuzz); do \
		$(BIN)/python -m tests.fuzz $$target --seconds $(FUZZ_SECONDS); done

lint: $(VENV)/linked-$(MODULES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

types: $(VENV)/linked-$(MODULES)
	MYPYPATH=$$(echo build/__editable__*) $(BIN)/mypy -p moehub
	MYPYPATH=$$(echo build/__editable__*) $(BIN)/mypy tests benchmarks

format: $(VENV)/linked-$(MODULES)
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache

# torch first and pinned: resolved beside the rest, a CPU machine would fetch gigabytes of CUDA.
$(VENV)/dependencies: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --upgrade pip
	$(BIN)/pip install -qq $$(grep '^torch==' constraints.txt)
	$(BIN)/pip install -qq --constraint constraints.txt --editable '.[dev]' --config-settings editable_mode=strict
	touch $@

$(VENV)/linked-$(MODULES): $(VENV)/dependencies
	rm -rf $(VENV)/linked-* build
	$(BIN)/pip install -qq --no-deps --editable . --config-settings editable_mode=strict
	touch $@
