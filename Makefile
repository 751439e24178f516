PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed

.PHONY: quickstart test test-cluster lint wheel frontend check-frontend clean

## Find a network for the digits: search, retrain, test, draw (a few minutes).
quickstart: $(INSTALLED)
	$(VENV)/bin/nasplat quickstart quickstart

## The test suite.
test: $(INSTALLED)
	$(VENV)/bin/python -m pytest -q -n 2 --ignore tests/ray

## Searches, tunings and faults on local Ray clusters: each file has a cluster, and a process, of its own.
## CLUSTER_TESTS="FILE…" runs only these.
test-cluster: $(INSTALLED)
	$(VENV)/bin/python -m tests.ray $(CLUSTER_TESTS)

## Style, types and import rules.
lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	PYTHONPATH= $(VENV)/bin/lint-imports

## sdist, wheel, a clean environment, a search from another directory.
wheel: $(INSTALLED)
	$(VENV)/bin/python tests/check_wheel.py

## The dashboard's pages, from their sources into the folder that the wheel ships (needs node 20 and npm).
frontend:
	cd dashboards/frontend && npm ci --no-audit --no-fund && npm run build

## Whether a fresh build gives the pages of the repository; without node 20, npm and a registry it says so and goes on.
check-frontend:
	$(PYTHON) tests/check_frontend.py

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) dist build quickstart nasplat-results
