# `make help` lists all commands. Everything runs in .venv, made from the hashed requirements on first use.
SHELL := /bin/bash
.DEFAULT_GOAL := help

DATA ?=
RECIPE ?=
SET ?=
SEEDS ?= 20
GPU ?=
PORT ?= 5000
STORE_PORT ?= 9000
BASE ?= HEAD

build := $(if $(GPU),gpu,$(if $(wildcard .venv/.installed-gpu),gpu,cpu))
stamp := .venv/.installed-$(build)
in_venv := PATH="$(CURDIR)/.venv/bin:$$PATH" VIRTUAL_ENV="$(CURDIR)/.venv"

# Telemetry of the tools stays off.
export DO_NOT_TRACK := true
export DVC_NO_ANALYTICS := true
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help repro git-repository git-identity compare ablation test test-system ui tracking-server bench setup requirements pictures sample

help: ## What each command does
	@printf 'usage: make COMMAND [NAME=value …]\n\n'
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 19
	@printf '\n  GPU=1          use the CUDA build of TensorFlow\n  DATA=FOLDER    images of your own in place of the synthetic sample (README, "Your own images")\n'
	@printf '  RECIPE=seed    the notebook'"'"'s recipe in place of the best one known\n  SET="lr=0.0003 epochs=3"   any other keys of params.yaml\n'

setup: $(stamp) ## Make .venv from the hashed requirements

$(stamp): requirements/$(build).txt pyproject.toml tools/make_venv.sh
	@tools/make_venv.sh $(build)

git-repository:
	@tools/check_git.sh "$(DATA)$(RECIPE)$(SET)"

git-identity:
	@tools/check_git.sh experiment

repro: git-repository $(stamp) ## Run the whole pipeline, then show the result; again: only what changed
	@$(in_venv) DATA="$(DATA)" RECIPE="$(RECIPE)" SET="$(SET)" tools/repro.sh

compare: $(stamp) ## Run the pipeline on BASE=COMMIT and on the files as they are; print both results as Markdown
	@$(in_venv) tools/compare_with.sh "$(BASE)"

ablation: git-identity $(stamp) ## Queue and run the default recipe with one thing changed at a time (DATA=FOLDER, SEEDS="20 21")
	@$(in_venv) tools/ablation.sh "$(DATA)" $(SEEDS)

test: $(stamp) ## Lint, layers, types and tests
	@$(in_venv) ruff check .
	@$(in_venv) ruff format --check .
	@$(in_venv) lint-imports --no-cache
	@$(in_venv) tools/check_types_and_test.sh -m 'not system'

test-system: .venv-server/.installed ## Tests with queues, kills, servers, two machines and a browser, which take longer
	@$(in_venv) tools/run_tests.sh -m system

ui: $(stamp) ## Compare runs in MLflow's page (PORT=5000)
	@$(in_venv) fakeface ui --port $(PORT)

.venv-server/.installed: requirements/server.txt tools/make_server_venv.sh $(stamp)
	@tools/make_server_venv.sh

tracking-server: .venv-server/.installed ## Run MLflow's server with PostgreSQL and an object store (PORT=5000 STORE_PORT=9000)
	@PYTHONPATH=src exec .venv-server/bin/python -m tools.tracking_server --port $(PORT) --store-port $(STORE_PORT)

bench: $(stamp) ## Measure this machine against the targets; see benchmarks/RESULTS.md
	@$(in_venv) python -m benchmarks $(if $(DATA),--data "$(DATA)")

pictures: $(stamp) ## Take the pictures of the README anew (needs Chromium; runs three short experiments)
	@$(in_venv) tools/take_pictures.sh

sample: $(stamp) ## Draw the synthetic sample anew, byte for byte
	@$(in_venv) python -m tools.synthetic_sample --out sample

requirements: $(stamp) ## Resolve pyproject.toml anew into requirements/*.txt (needs uv)
	@tools/lock_requirements.sh
