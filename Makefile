# Dream Forge. `make` alone lists every target below; nothing here needs more than make, git and Python >= 3.11.
#
# Lines of the form `target: deps ## text` are the list; `##@ Title` starts a group.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

BIN := .venv/bin
PY := $(BIN)/python
PYTEST := $(PY) -m pytest
BASE := .venv/.base-installed
SDXL := .venv/.sdxl-installed

help: ## This list
	@if [ -t 1 ]; then on=$$'\033[36m' off=$$'\033[0m'; else on= off=; fi; \
	awk -v on="$$on" -v off="$$off" 'BEGIN {FS = ":.*## "} \
	  /^##@ / {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z][a-z0-9-]*:.*## / {printf "  %s%-17s%s %s\n", on, $$1, off, $$2}' Makefile

##@ Start here
demo: setup ## One command from a fresh clone to images on disk (ARGS="--count 4 'a lighthouse at dusk'")
	@$(BIN)/dreamforge demo $(ARGS)

test: setup test-parts ## Run every test this machine can run, and say which it can't and why (ARGS= for pytest)
	@$(PYTEST) $(ARGS)

setup: $(BASE) ## Make .venv from the hashed lock; leaves .venv/bin/dreamforge (PYTHON= picks the interpreter)

setup-sdxl: $(SDXL) ## Add torch and diffusers (large; DF_SKIP_SDXL=1 leaves them out)

$(BASE): locks/base.txt pyproject.toml scripts/setup.sh
	@scripts/setup.sh base
	@touch $@

$(SDXL): locks/sdxl.txt $(BASE)
	@if [ "$${DF_SKIP_SDXL:-}" = 1 ]; then echo "== SDXL left out: DF_SKIP_SDXL=1"; else scripts/setup.sh sdxl && touch $@; fi

##@ Run
dev: setup ## The embedded stack, started again whenever a source file changes (ARGS= for `dreamforge up`)
	@$(PY) scripts/dev.py $(ARGS)

up: ## Compose: the whole system in containers, ready when it returns (`make images` first; GPU=1 for the card)
	@scripts/compose.sh up -d --wait $(ARGS)

down: ## Compose: stop it; data stays in its volumes (ARGS=--volumes removes them)
	@scripts/compose.sh down $(ARGS)

logs: ## Compose: follow all logs (ARGS=api for one)
	@scripts/compose.sh logs -f $(ARGS)

status: ## Compose: what runs, and how it is
	@scripts/compose.sh ps $(ARGS)

gpu-cdi-generate: ## Write the CDI spec of this machine's GPUs, unless the toolkit's own service keeps one
	@scripts/gpu_cdi.sh

inspect-env: ## What this machine has: Python, servers, Docker, GPU, CDI, settings
	@scripts/inspect_env.sh

##@ Check
lint: setup ## Lint, formatting, import contracts and guards
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(PY) scripts/guards.py

fmt: setup ## Format, and mend what the linter can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

type: setup setup-sdxl ## mypy --strict over everything
	@$(BIN)/mypy

verify: setup setup-sdxl ## Regenerate what is generated, run every check, demand a clean tree
	@scripts/verify.sh

##@ Test, by tier
test-unit: setup ## One module at a time, no socket
	@$(PYTEST) tests/unit $(ARGS)

test-contract: setup ## What two parts promise each other
	@$(PYTEST) tests/contract $(ARGS)

test-integration: setup test-parts ## On real PostgreSQL, Redis, HTTP, S3 and diffusers
	@$(PYTEST) tests/integration $(ARGS)

e2e: setup test-parts ## The whole system as a user has it: `dreamforge up`, and `kubectl apply -k` on a real cluster
	@$(PYTEST) tests/e2e tests/cluster/test_e2e.py $(ARGS)

test-faults: setup ## Processes killed at every named crash point and by lot, under load; then every promise checked
	@$(PYTEST) tests/faults $(ARGS)

test-cluster: setup ## On a real Kubernetes: the one KUBECONFIG names, else one of its own (needs Linux, root, Go)
	@$(MAKE) --no-print-directory --keep-going s3-server cluster-build || true
	@$(PYTEST) tests/cluster $(ARGS)

test-compose: setup ## `make up` for real: Docker, or Podman as root in its place; images are built first
	@if command -v go >/dev/null 2>&1; then $(MAKE) --no-print-directory s3-server && tests/compose/build.sh || true; fi
	@$(PYTEST) tests/compose $(ARGS)

soak: setup ## The same for MINUTES=20; prints a table of faults and one of broken promises (ARGS="--seed 1")
	@$(PY) -m tests.faults.soak --minutes $(or $(MINUTES),20) $(ARGS)

test-fuzz: setup ## Some hundred calls drawn from the OpenAPI document, good and bad, alone and in chains
	@$(PYTEST) tests/fuzz $(ARGS)

fuzz: setup ## The same for CALLS=10000; prints calls by operation and what broke the document (ARGS="--seed 1")
	@$(PY) -m tests.fuzz.long --calls $(or $(CALLS),10000) $(ARGS)

test-parts: setup-sdxl
	@if command -v go >/dev/null 2>&1; then $(MAKE) --no-print-directory s3-server || true; tests/compose/build.sh || true; \
	  if [ "$${DF_SKIP_CLUSTER:-}" != 1 ]; then $(MAKE) --no-print-directory cluster-build || true; fi; fi

bench: setup setup-sdxl ## The speed targets, both sides interleaved in one run (ARGS= picks some)
	@$(PY) -m benchmarks $(ARGS)

##@ Development cluster
kind: ## Everything on a kind cluster of this machine (docs/install/kind.md)
	@scripts/kind.sh

tilt: ## Live development on the cluster of the current context (needs tilt)
	@tilt up $(ARGS)

tilt-build: ## Build Tilt from its Go module, for the test of the Tiltfile (needs Go 1.26; minutes)
	@scripts/build_tilt.sh

kueue-build: ## Build Kueue from its Go module, for the tests of queues (needs Go 1.26; minutes)
	@scripts/build_kueue.sh

##@ Test cluster
cluster-build: ## Build Kubernetes from Go modules into .cache/cluster (needs Linux and Go 1.26; minutes the first time)
	@tests/cluster/build.sh

cluster-up: setup ## Start a real Kubernetes with a pretended GPU, installing and building what it lacks; prints KUBECONFIG
	@$(PY) -m tests.cluster up

cluster-down: setup ## End it, and leave nothing behind
	@$(PY) -m tests.cluster down

##@ Generate
manifests: ## Write manifests/install.yaml from kustomize/overlays/prod
	@kubectl kustomize kustomize/overlays/prod >manifests/install.yaml

openapi: setup ## Write docs/openapi/ from the app
	@$(PY) -m dreamforge_api.openapi

crds: setup ## Write crds/renderjobs.yaml from the models and rules of core/dreamforge/renderjob/
	@$(PY) scripts/crds.py

golden: setup setup-sdxl ## Render the golden images of the tiny checkpoint again
	@$(PY) -m tests.golden.renders

env-example: setup ## Write .env.example from the settings classes
	@$(PY) scripts/env_example.py

lock: setup ## Write locks/ from pyproject.toml (UPGRADE=1 takes the newest versions)
	@scripts/lock.sh $(if $(UPGRADE),--upgrade)

s3-server: ## Build the S3 server that tests and Compose use (needs Go)
	@scripts/build_s3_server.sh

##@ Images
images: ## Build the images with docker, podman or buildah (ENGINE= EXTRAS=sketch|sdxl TAG= REGISTRY= BASE_IMAGE=; ARGS=api picks one)
	@scripts/images.sh $(ARGS)

##@ Database
migrate: setup ## Bring DF_DATABASE_URL to the newest schema
	@$(PY) -m dreamforge_api.migrate

revision: setup ## A new migration from the tables (M="what it does"; DF_DATABASE_URL at head)
	@$(PY) scripts/revision.py "$(M)"

.PHONY: help demo test setup setup-sdxl dev up down logs status gpu-cdi-generate inspect-env lint fmt type verify test-unit test-contract \
  test-integration e2e test-faults test-cluster test-compose cluster-build cluster-up cluster-down kind tilt tilt-build kueue-build soak test-fuzz fuzz test-parts bench manifests openapi crds golden env-example lock s3-server images migrate revision
