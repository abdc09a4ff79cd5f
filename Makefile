# make demo   install into .venv and run the loop on pylm, a real language model
# make test   everything CI runs
# make lock   pin what a fresh install resolves to
# make peers  the libraries that benchmarks/agreement.py measures against, into .venv-peers
# PIP_ARGS    options for pip, such as: make demo PIP_ARGS="--extra-index-url URL-OF-PYTORCH'S-CPU-WHEELS"

VENV := .venv
BIN := $(VENV)/bin
PIP_ARGS ?=
# the first Python that prosect supports
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
  command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
  2>/dev/null && echo $$p && break; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check

PEERS := .venv-peers

.PHONY: demo test lint lock peers lock-peers clean

demo: $(VENV)/.installed
	@$(BIN)/prosect run pylm

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "prosect needs Python 3.11, 3.12 or 3.13; set PYTHON=..."; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.lock pyproject.toml | $(VENV)/bin/python
	$(PIP) install -q $(PIP_ARGS) -r requirements.lock
	$(PIP) install -q --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	$(PIP) install -q $(PIP_ARGS) -r requirements-dev.lock
	@touch $@

lock:
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install -q $(PIP_ARGS) "torch==2.13.0" hatchling . editables
	sh scripts/freeze.sh .venv-lock > requirements.lock
	.venv-lock/bin/python -m pip install -q $(PIP_ARGS) ".[dev]"
	{ echo "-r requirements.lock"; sh scripts/freeze.sh .venv-lock | grep -vxFf requirements.lock; } > requirements-dev.lock
	rm -rf .venv-lock

peers: $(PEERS)/.installed

$(PEERS)/.installed: requirements-peers.lock requirements.lock
	@test -n "$(PYTHON)" || { echo "prosect needs Python 3.11, 3.12 or 3.13; set PYTHON=..."; exit 2; }
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install -q $(PIP_ARGS) -r requirements-peers.lock
	$(PEERS)/bin/python -m pip install -q --no-deps --no-build-isolation -e .
	@touch $@

lock-peers:
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install -q $(PIP_ARGS) -r requirements.lock
	.venv-lock/bin/python -m pip install -q $(PIP_ARGS) -c requirements.lock -r requirements-peers.txt
	{ echo "-r requirements.lock"; sh scripts/freeze.sh .venv-lock | grep -vxFf requirements.lock; } > requirements-peers.lock
	rm -rf .venv-lock

clean:
	rm -rf $(VENV) $(PEERS) .venv-lock build dist
