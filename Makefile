# `make` alone prints what there is. Set-up happens by itself and is remembered in .venv.
PYTHON ?= python3
# Tests wait for servers half of their time: four processes keep two cores busy. Each needs up to 3 GB.
JOBS ?= 4
BIN := .venv/bin
UV := $(BIN)/uv
INSTALL := $(UV) pip install --quiet --python $(BIN)/python --no-deps
LOCKED := $(INSTALL) --compile-bytecode --require-hashes
COMPILE := $(UV) pip compile --quiet --upgrade --generate-hashes --no-emit-index-url --no-header --no-annotate \
	--python-version 3.11
LOCKS := deploy/locks

.DEFAULT_GOAL := help
.PHONY: help demo test soak fuzz lint audit bench up down locks clean python servers

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: servers .venv/.worker ## Real Kafka, Redis and worker tag a few tracks; your own with AUDIO=folder, a page with KEEP=1
	@$(BIN)/python -m deploy.local.demo $(if $(KEEP),--keep) $(if $(AUDIO),"$(AUDIO)")

# Bytecode is kept even where the environment says otherwise: each process would compile all tests again.
test: servers .venv/.dev ## Run all tests on real servers; some with ARGS="tests/models -k mel"
	@PYTHON=$(PYTHON) deploy/local/system.sh tests
	@$(BIN)/python -m deploy.local prepare
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

soak: servers .venv/.dev ## Run the long fault tests: an hour, figures in build/soak.csv
	@$(BIN)/python -m deploy.local prepare
	$(BIN)/python -m pytest -m soak -s $(ARGS)

lint: .venv/.dev ## Check style, types and the imports between rooms and wings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

fuzz: .venv/.dev ## Fuzz the decoders and the event decoder, ten minutes each; findings in build/fuzz
	@$(LOCKED) -r $(LOCKS)/fuzz.txt
	$(BIN)/python tests/fuzz/fuzz.py decode
	$(BIN)/python tests/fuzz/fuzz.py events

audit: .venv/.dev ## Look the locked versions up in the Python package index's advisory database
	$(BIN)/pip-audit --strict --require-hashes --disable-pip --progress-spinner off \
		-r $(LOCKS)/dev.txt -r $(LOCKS)/build.txt -r $(LOCKS)/musicnn.txt

bench: servers .venv/.dev ## Measure speed and memory: a line per figure, and build/bench.json
	$(BIN)/python tests/benchmarks/bench.py $(ARGS)

up: servers .venv/.worker ## Start Kafka and Redis, and leave them running
	@$(BIN)/python -m deploy.local up

down: .venv/.worker ## Stop what `make up` started
	@$(BIN)/python -m deploy.local down

locks: .venv/.build ## Renew the locked versions of all dependencies
	$(COMPILE) pyproject.toml --extra offline --extra ray --extra signing --extra dev -o $(LOCKS)/dev.txt
	$(COMPILE) pyproject.toml --extra offline -c $(LOCKS)/dev.txt -o $(LOCKS)/offline.txt
	$(COMPILE) pyproject.toml -c $(LOCKS)/dev.txt -o $(LOCKS)/worker.txt
	echo musicnn==0.1.0 | $(COMPILE) --no-deps - -o $(LOCKS)/musicnn.txt
	printf '%s\n' recbole==1.2.1 'numpy<2' 'pandas<3' "$$(grep -o '^torch==[0-9.]*' $(LOCKS)/dev.txt)" | $(COMPILE) - -o $(LOCKS)/recbole.txt
	{ echo quixstreams==3.28.1; grep -o '^[^ ]*==[^ ]*' $(LOCKS)/worker.txt | grep -v ^pydantic; } | $(COMPILE) - -o $(LOCKS)/quix.txt
	echo 'feast[redis]' | $(COMPILE) - -o $(LOCKS)/feast.txt
	echo atheris==3.0.0 | $(COMPILE) --no-deps - -o $(LOCKS)/fuzz.txt
	printf '%s\n' uv hatchling editables | $(COMPILE) - -o $(LOCKS)/build.txt

clean: ## Remove everything that make made, the environment included
	@if [ -e .venv/.worker ]; then $(BIN)/python -m deploy.local down; fi
	rm -rf .venv build .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What the machine must have: Python's venv for every target, Java and Redis for those that start servers.
python:
	@PYTHON=$(PYTHON) deploy/local/system.sh python

servers: python
	@PYTHON=$(PYTHON) deploy/local/system.sh

.venv/.build: $(LOCKS)/build.txt | python
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.version_info >= (3, 11) or \
	sys.exit(f"tastewave needs Python 3.11 or newer, $(PYTHON) is {v}; name another one: make PYTHON=python3.11")'
	@echo "Making .venv ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

.venv/.worker: .venv/.build $(LOCKS)/worker.txt pyproject.toml
	@echo "Installing the worker's dependencies ..."
	@$(LOCKED) -r $(LOCKS)/worker.txt
	@$(INSTALL) --no-build-isolation --editable .
	@touch $@

# The developer's set holds the worker's: what it installed need not be looked at again. librosa keeps what it compiles
# beside its sources: each process of the tests would do that again, for half a minute.
.venv/.dev: .venv/.build $(LOCKS)/dev.txt $(LOCKS)/musicnn.txt pyproject.toml
	@echo "Installing the developer's dependencies (minutes the first time) ..."
	@$(LOCKED) -r $(LOCKS)/dev.txt -r $(LOCKS)/musicnn.txt
	@$(INSTALL) --no-build-isolation --editable .
	@$(BIN)/python -c "import librosa; librosa.feature.melspectrogram"
	@touch .venv/.worker $@
