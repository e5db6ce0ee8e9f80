# srp4ctr: `make demo` and `make test` do all of their own set-up.
SHELL := /bin/bash
# The first Python 3.11 or 3.12 on the path; PYTHON=/path/to/python chooses another.
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null \
	&& { command -v $$p; break; }; done)
# If empty, torch comes from PyPI. `make TORCH_BACKEND=cpu demo` installs the small CPU build.
TORCH_BACKEND ?=
# Each installed file must have a hash that the lock names. With TORCH_BACKEND, torch comes
# from another index, with other hashes: the lock then checks all packages but torch's.
WITHOUT_TORCH_HASHES := sed -E '/^(torch|triton|nvidia-[a-z0-9-]+)==/,/[^\\]$$/{ s/ \\$$//; /--hash=/d }'
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# Number of test processes. The brokers and Triton that they start need cores, too.
AT_ONCE ?= 2
# Set in CI: `make test` then prints which share of each folder's lines the tests ran.
COVERAGE ?= $(CI)
ROOMS := streams features training triton_repo monitoring srp4ctr
# The real stack's profile, cpu or gpu. PRODUCERS=1 publishes Kafka for producers elsewhere.
PROFILE ?= cpu
PRODUCERS ?=
# With the profile gpu, Triton's ONNX Runtime backend runs encoder and head.
COMPOSE_WORDS = docker compose -f compose.yaml $(if $(PRODUCERS),-f compose.producers.yaml) --profile $(PROFILE)
COMPOSE = $(if $(filter gpu,$(PROFILE)),TRITON_BACKEND=$(or $(TRITON_BACKEND),onnxruntime)) $(COMPOSE_WORDS)

# If it is set, each process compiles every module that it imports: 8 s with torch.
unexport PYTHONDONTWRITEBYTECODE
.DEFAULT_GOAL := help
.PHONY: help demo test check lint bench benchmarks-page setup hooks lock audit sbom pin-images fuzz schema dashboards rules source-map columns secrets up down logs ops doctor refresh images backup restore containers clean
# Without buildx, Docker's older builder is used.
export DOCKER_BUILDKIT ?= $(shell docker buildx version >/dev/null 2>&1 && echo 1 || echo 0)
# The operator's name in the audit log.
export SRP4CTR_ACTOR ?= $(shell id -un)@$(shell hostname)

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 17

demo: setup ## install, then run the whole loop on real data with the embedded stack (ARGS="--keep")
	@$(BIN)/srp4ctr demo $(ARGS)

test: setup lint ## install, lint, check types, and run every test that this machine can
	@$(BIN)/python -m pytest -n $(AT_ONCE) --no-loadscope-reorder $(if $(COVERAGE),--cov --cov-report=) $(ARGS)
	@$(if $(COVERAGE),$(PRINT_COVERAGE))

PRINT_COVERAGE = echo "Lines that the tests ran, without the processes that they started:"; \
  for room in $(ROOMS); do \
    printf '  %-12s %3s %%\n' $$room "$$($(BIN)/coverage report --include="$$room/*" --format=total)"; \
  done; \
  printf '  %-12s %3s %%\n' all "$$($(BIN)/coverage report --format=total)"

check: setup lint ## lint, check types, and run the fast tests: no broker, no store, no Triton
	@$(BIN)/python -m pytest -m "not stack and not kafka and not triton and not redis and not containers" $(ARGS)

lint: setup ## ruff, mypy --strict, the import rule
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: setup ## run a benchmark: make bench NAME=serving (SAVE=1: keep its result)
	@test -n "$(NAME)" || { $(BIN)/python -m benchmarks; exit 2; }
	@$(if $(SAVE),$(BIN)/python -m benchmarks.harness.saved_result --check $(NAME))
	@set -o pipefail; $(BIN)/python -m benchmarks $(NAME) $(ARGS)$(if $(SAVE), | $(BIN)/python -m benchmarks.harness.saved_result $(NAME))

benchmarks-page: setup ## rewrite docs/benchmarks.md from benchmarks/results
	@$(BIN)/python -m benchmarks results_page

setup: $(VENV)/compiled .serving/installed hooks ## build .venv, the embedded Triton in .serving, and turn the git hooks on

# Only in a checkout. Hooks that you have set yourself stay.
hooks: ## let git check each commit with the hooks in .githooks
	@if [ -e .git ] && ! git config core.hooksPath >/dev/null; then git config core.hooksPath .githooks; fi

$(VENV)/installed: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or 3.12 on the path: install one, or run make PYTHON=/path/to/python"; exit 1; }
	@echo "Installing into $(VENV). torch's CUDA build is a download of 3 GB; TORCH_BACKEND=cpu installs a small one"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
ifeq ($(TORCH_BACKEND),)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
else
	@$(WITHOUT_TORCH_HASHES) requirements.lock > $(VENV)/requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --torch-backend $(TORCH_BACKEND) -r $(VENV)/requirements.lock
endif
	@touch $@

# A changed source is compiled again: features compiled from another source are not used.
$(VENV)/compiled: $(wildcard features/tensors/*.[ch]) $(wildcard triton_repo/native/*.[ch]) hatch_build.py $(VENV)/installed
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

.serving/installed: $(VENV)/compiled srp4ctr/embedded/triton-requirements.lock srp4ctr/embedded/triton-server.lock
	@echo "Installing the embedded Triton into .serving"
	@$(BIN)/srp4ctr stack prepare
	@touch $@

LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
  --no-emit-index-url --no-annotate --no-header --generate-hashes
# nvidia-pytriton 0.7.0 holds tritonserver 2.51.0 and its Python stubs 3.8 to 3.13: raise it in
# srp4ctr/embedded/triton-server.lock, which is its own input.
lock: ## resolve the lock files of the project, of the embedded Triton and of the SBOM's tool
	@$(LOCK) --extra all --extra dev pyproject.toml -o requirements.lock
	@$(LOCK) --override srp4ctr/embedded/triton-overrides.in srp4ctr/embedded/triton-requirements.in -o srp4ctr/embedded/triton-requirements.lock
	@$(LOCK) deploy/images/sbom.in -o deploy/images/sbom.lock
	@$(LOCK) --no-deps srp4ctr/embedded/triton-server.lock -o srp4ctr/embedded/triton-server.lock

audit: setup ## list known vulnerabilities of the locked packages (PyPI's advisories)
	@$(BIN)/uv tool run pip-audit==2.10.1 --strict --disable-pip --require-hashes --progress-spinner off -r requirements.lock

# The tool has its own environment; each of its packages has a hash in the lock.
.tools/sbom/installed: deploy/images/sbom.lock $(VENV)/installed
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .tools/sbom
	@$(BIN)/uv pip install --quiet --python .tools/sbom/bin/python --require-hashes -r $<
	@touch $@

sbom: setup .tools/sbom/installed ## write sbom.cdx.json: all installed packages, with licences (CycloneDX)
	@.tools/sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o sbom.cdx.json $(BIN)/python

pin-images: ## pin the images of Dockerfile, compose.yaml and the chart by digest (needs their registries)
	@$(PYTHON) -m srp4ctr.ops.image_pins

fuzz: setup ## run the fuzzed tests with FUZZ=50 times their examples
	@FUZZ=$(or $(FUZZ),50) $(BIN)/python -m pytest --timeout 3600 tests/*_fuzz.py tests/*/*_fuzz.py tests/*/*/*_fuzz.py tests/streams/raw_log/test_erasure.py tests/triton_repo/deployment/test_contract.py $(ARGS)

schema: setup ## rewrite the schemas of events and of what commands print with --json
	@$(BIN)/srp4ctr events schema
	@$(BIN)/srp4ctr schema --out-dir docs/schemas

dashboards: setup ## rewrite Grafana's dashboards from monitoring/dashboards
	@$(BIN)/python -m srp4ctr.monitoring.dashboards.boards

rules: setup ## rewrite the objectives' rules from monitoring/objective_rules.py
	@$(BIN)/python -m srp4ctr.monitoring.objective_rules

columns: setup ## rewrite features/tensors/columns.h from the table of columns
	@$(BIN)/python -c "from srp4ctr.features import columns; print(columns.c_header(), end='')" > features/tensors/columns.h

source-map: ## print a tree of all files, each with the first sentence of its docstring
	@$(PYTHON) -m tests.structure.source_map

secrets: ## make and renew the real stack's certificates and passwords (HOSTS="rank.example.com", DAYS=90)
	@$(PYTHON) -m srp4ctr.ops.stack_secrets $(HOSTS) $(if $(DAYS),--days $(DAYS))

up: secrets ## start the real stack with Docker (PROFILE=gpu, PRODUCERS=1, ARGS="--scale stream=3")
	@$(COMPOSE) up --build --detach $(ARGS)

down: ## stop the real stack; its volumes stay
	@$(COMPOSE) down $(ARGS)

ops: ## run an operator's command in the real stack (ARGS="features check --sample 1000")
	@$(COMPOSE) run --rm ops $(ARGS)

doctor: ## check what the real stack exposes, and which parts do not work
	@$(COMPOSE) run --rm ops doctor --grafana https://grafana:3000

backup: ## stop the real stack and copy its volumes (TO=folder; LIVE=1: only objects and data, without a stop)
	@test -n "$(TO)" || { echo "TO is not set: run make backup TO=/srv/backups/today"; exit 2; }
	@$(PYTHON) -m srp4ctr.ops.stack_backup backup $(TO) $(if $(LIVE),--live) -- $(COMPOSE_WORDS)

restore: ## recreate the volumes from a backup (FROM=folder)
	@test -n "$(FROM)" || { echo "FROM is not set: run make restore FROM=/srv/backups/today"; exit 2; }
	@$(PYTHON) -m srp4ctr.ops.stack_backup restore $(FROM) -- $(COMPOSE_WORDS)

containers: setup ## run compose.yaml as a whole and break each part; about 25 minutes
	@$(BIN)/python -m tests.containers.whole $(ARGS)

refresh: ## train and evaluate now, in the real stack; the promoter promotes (ARGS="--force")
	@$(COMPOSE) run --rm --no-deps $(if $(filter gpu,$(PROFILE)),trainer-gpu,trainer) model refresh $(ARGS)

logs: ## follow the real stack's logs (ARGS="stream trainer")
	@$(COMPOSE) logs --follow $(ARGS)

VERSION = $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' pyproject.toml)
PUSH ?= 1
images: ## build our images and push them as REGISTRY/srp4ctr-ROLE:VERSION (PUSH= prints the commands)
	@test -n "$(REGISTRY)" || { echo "REGISTRY is not set: run make images REGISTRY=registry.example.com/team"; exit 2; }
	@$(if $(PUSH),,echo) $(COMPOSE) build
	@set -e; for role in stream monitor trainer triton objects; do image=srp4ctr-$$role:$(VERSION); \
	  $(if $(PUSH),,echo) docker tag $$image $(REGISTRY)/$$image; \
	  $(if $(PUSH),,echo) docker push $(REGISTRY)/$$image; done

clean: ## remove the data and caches, not the environments
	rm -rf .data .mypy_cache .ruff_cache .pytest_cache
