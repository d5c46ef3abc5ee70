# Two commands do everything on a machine with git, make and Python 3.11 or newer:
#   make demo    record, train and score an agent on a small game
#   make test    run the tests
# The first call makes .venv with exact versions; later calls start at once and need no network.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
WEIGHTS := $(VENV)/.weights
DEMO ?= runs/demo
# The game Luanti, an X server without a screen, drawing in software, and a compiler for the lock step (docs/luanti.md).
LUANTI := minetest xvfb libgl1-mesa-dri gcc libc6-dev

.PHONY: demo test slow lint types docs format install weights luanti clean

demo: $(INSTALLED) $(WEIGHTS)
	@$(BIN)/reverie demo --out $(DEMO)

# Two processes of one thread each: many tests wait for what they have started.
test: $(INSTALLED)
	@$(BIN)/pytest -n 2 --dist worksteal

slow: $(INSTALLED) $(WEIGHTS)
	@$(BIN)/pytest -m "slow and not gpu"

lint: $(INSTALLED)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

types: $(INSTALLED)
	@$(BIN)/mypy

# A link that leads nowhere is an error.
docs: $(INSTALLED)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet && echo "site/index.html"

format: $(INSTALLED)
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

install: $(INSTALLED)

weights: $(WEIGHTS)

luanti: $(INSTALLED)
	@command -v apt-get >/dev/null || { echo "make: apt-get was not found; install $(LUANTI) in your system's way."; exit 1; }
	@dpkg -s $(LUANTI) >/dev/null 2>&1 || \
	  { [ "$$(id -u)" = 0 ] || { echo "make: run this as root: apt-get install $(LUANTI)"; exit 1; }; \
	    apt-get update -q && apt-get install -y -q --no-install-recommends $(LUANTI); }

clean:
	@rm -rf $(VENV) build dist site src/*.egg-info

$(INSTALLED): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null 2>&1 || \
	  { echo "make: $(PYTHON) was not found; install Python 3.11 or newer, or run 'make PYTHON=/path/to/python3'."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is $$($(PYTHON) -V 2>&1), needed is 3.11 or newer; run 'make PYTHON=python3.12' or similar."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "make: this Python cannot make virtual environments; install its venv package (Debian: apt install python3-venv)."; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { echo "Making $(VENV) ..."; $(PYTHON) -m venv --clear $(VENV); }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.4"
	@$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python --constraints constraints.txt setuptools
	@$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python --constraints constraints.txt --editable ".[crafter,hub,luanti,parquet,docs,dev]"
	@touch $@

$(WEIGHTS): $(INSTALLED)
	@$(BIN)/reverie fetch-weights
	@touch $@
