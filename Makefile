# Two commands matter: `make demo` shows the whole thing, `make test` proves it. Both set the machine up first.
PYTEST := .venv/bin/pytest
# Many tests wait for timers of the node: two at a time take little more than half as long, also on two cores.
JOBS ?= 2

.PHONY: help setup lock lint test demo bench soak clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST)

setup:  ## Debian packages that are missing (as root), .venv with the locked versions, the project in it
	@scripts/setup

lock:  ## write requirements.lock anew from pyproject.toml
	@scripts/lock

lint: setup  ## ruff, mypy --strict, floors and budgets
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy --strict -p core -p reconciler -p migrations
	$(PYTEST) -q tests/test_architecture.py

test: lint  ## lint, then unit, conformance, property, crash and e2e tests; ends with the skips and their reasons
	@# A short folder of this run's own: sockets lie in it, whose paths are limited. A file's tests stay together, in their order.
	place=$$(mktemp -d /tmp/rt.XXXXXX) && { $(PYTEST) -n $(JOBS) --dist loadfile --no-loadscope-reorder --basetemp=$$place/t; \
	code=$$?; rm -rf $$place; exit $$code; }

demo: setup  ## build images, run a registry and the agent, break things, clean up
	@scripts/demo

bench: setup  ## measure against the peers and the goals; print the table, write docs/benchmarks.md
	.venv/bin/python -m tests.bench

soak: setup  ## what is too long for CI
	$(PYTEST) -m soak

clean:  ## remove what the other targets made in this folder
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
