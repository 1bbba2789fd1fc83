# `make demo` and `make test` are complete on a bare machine with Python 3.11 and make.
PYTHON ?= python3
BIN := .venv/bin
# What the quick suite runs in; each with one thread, so that it takes a core.
PROCESSES ?= 2
READY := .venv/.ready
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-long check format clean
.DEFAULT_GOAL := demo

demo: $(READY)
	$(BIN)/videodit generate "a red circle moves right" -o hello.mp4
	@echo "The video is $(CURDIR)/hello.mp4."

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(PROCESSES) --dist worksteal

test-long: $(READY)
	$(BIN)/pytest -m slow --timeout 3600

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Built again only when what it is made from changes.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "videodit needs Python 3.11 or newer and $(PYTHON) is not: name one, as in make PYTHON=python3.11 demo." >&2; exit 1; }
	@echo "Making the environment in .venv (once, a minute or two) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis dist
