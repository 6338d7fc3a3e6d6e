# Two doors: `make test` and `make demo`. Both build .venv first, and only when the pins changed.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
WORKERS ?= auto

# One thread a process: the tests run one process a core, and small networks gain nothing from more.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint types contracts venv opengl clean

demo: venv opengl
	$(RUN) -m agents.pebble

test: lint types contracts opengl
	$(RUN) -m pytest -q -n $(WORKERS)

lint: venv
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: venv
	$(RUN) -m mypy

contracts: venv
	$(VENV)/bin/lint-imports

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "vlp-gym needs Python 3.11 or newer, and $(PYTHON) is older or missing; install one and name it: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments; on Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

# Whether this machine can draw is tried before anything long starts.
opengl: venv
	@$(RUN) -c 'import sys; from vlp_gym.doctor import check_opengl; sys.exit(check_opengl().cure or None)'

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
