# make quickstart  - runs every stage once, on photos that installed packages ship
# make test        - linters, types, floors, all tests that need neither a GPU nor a cluster nor half a minute each
# make test-slow   - the tests that take longer, most of them of killed processes
# make test-cluster - the tests that submit jobs to a cluster; those of several machines need root
# make test COVERAGE=1 - besides, the share of each module's lines that the tests' own processes run, and its floor
# make bench       - cost per pair, compared with the published way of computing it; writes bench.json
# make curves      - the loss curve of one, two and three workers; draws docs/training-curves.png (minutes)
# make bench-gpu   - the same on a CUDA GPU; adds its figures to bench.json (a minute)
# make bench-scaling - cost per pair as a collection grows, and the gain of a second actor; writes docs/scaling*
# make bench-blocks - what handing out, committing and finishing blocks costs, in a folder and a bucket (20 minutes)
# make accuracy    - PCK of methods and settings on the benchmarks below datasets/; writes docs/accuracy.* (an hour or two)
# make estimate-10m - what 10 million images take on 64 GPUs, from measured pieces; writes docs/scale.md
# make chaos       - kills, full disks, a store that fails: what is left of results; needs root; writes docs/chaos.md (hours)
# make chaos SHORT=1 - the same with ten kills, in minutes; writes nothing
# make fuzz        - damaged and hostile inputs for every reader, ten minutes each; writes docs/chaos.md
# make cluster     - starts a Ray cluster of three machines with S3 and MLflow servers on this one; needs root
# make cluster-down - takes it down
# make docs        - the documentation, built into site/
# Each makes .venv with the pinned dependencies if it is not there.

PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: quickstart test test-slow test-cluster lint docs bench bench-gpu bench-scaling bench-blocks accuracy estimate-10m curves chaos fuzz cluster cluster-down lock

quickstart: .venv/installed
	$(BIN)/dhpf run quickstart

IN_PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not (gpu or cluster or slow or long)" $(IN_PARALLEL) $(if $(COVERAGE),--cov)

test-slow: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow and not (gpu or cluster or long)" $(IN_PARALLEL)

# One process, so that one cluster of several machines serves all tests, and nothing computes beside it.
test-cluster: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m cluster

bench: .venv/installed
	$(BIN)/python -m benchmarks.bench

bench-gpu: .venv/installed
	$(BIN)/python -m benchmarks.gpu

bench-scaling: .venv/installed
	$(BIN)/python -m benchmarks.scaling

bench-blocks: .venv/installed
	$(BIN)/python -m benchmarks.blocks

accuracy: .venv/installed
	$(BIN)/dhpf run self-taught --only shard
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.accuracy

estimate-10m: .venv/installed
	$(BIN)/python -m benchmarks.ten_million

curves: .venv/installed
	$(BIN)/python -m benchmarks.training_curves

chaos: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.chaos $(if $(SHORT),--short,--write)

fuzz: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.fuzz --write

cluster: .venv/installed
	$(BIN)/python -m infra.local_cluster up

cluster-down: .venv/installed
	$(BIN)/python -m infra.local_cluster down

docs: .venv/installed
	$(BIN)/mkdocs build --strict

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

# Renews requirements.lock after a change in pyproject.toml, and with its versions the locks of the two images; needs uv.
COMPILE := uv pip compile --quiet --generate-hashes --python-version 3.11 --no-emit-index-url --no-header
lock:
	$(COMPILE) --extra dev --extra docs pyproject.toml -o requirements.lock
	$(COMPILE) --constraint requirements.lock pyproject.toml -o infra/requirements.lock
	$(COMPILE) --constraint requirements.lock infra/mlflow/requirements.in -o infra/mlflow/requirements.lock
