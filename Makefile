# Two commands do everything on a machine with Python 3.11, git and make: `make paper` and `make test`.
# Recipes are single commands without a shell, so that the program is make's own child and ends with it.

PYTHON ?= python3.11
PROFILE ?= quick
# Time for measuring, such as 15m or 8h, and time to be added to a complete run: BUDGET=45m, MORE=15m
BUDGET ?=
MORE ?=
RUN ?=
NEW ?=
BENCH ?=
FUZZ ?=
F ?= encodings
# Processes that share the tests: most tests wait for servers, so one more than there are cores.
WORKERS ?= 3
# For a CPU build of torch outside PyPI's default: TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

BIN := .venv/bin
TIME := $(if $(BUDGET),--budget $(BUDGET)) $(if $(MORE),--more $(MORE))
# "anew" for an environment that cannot be used: its installation did not end, another Python made it, or it was made in
# another folder, whose path stands in its programs. venv writes Python's version and the folder into pyvenv.cfg.
cfg = $(file <$1/pyvenv.cfg)
stale = $(if $(and $(wildcard $1/.complete),$(filter 3.11.%,$(cfg)),$(filter $(CURDIR)/$1 $(realpath $1),$(cfg))),,anew)
DRAW := $(if $(call stale,.venv),.venv-figures,.venv)
export PYTHONUTF8 := 1

.PHONY: install paper test figures finding advice lab docs bench fuzz check release audit format clean anew
.DEFAULT_GOAL := paper

install: .venv/.complete

paper: .venv/.complete
	$(BIN)/infscale --end-with-parent paper --profile $(PROFILE) $(TIME) $(if $(NEW),--new)

test: .venv/.complete
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

figures: $(DRAW)/.complete
	$(DRAW)/bin/infscale --end-with-parent figures $(if $(RUN),--run $(RUN))

# One finding of the study, by name: make finding F=encodings
finding: .venv/.complete
	$(BIN)/infscale --end-with-parent finding $(F) --profile $(PROFILE) $(TIME) $(if $(NEW),--new)

# What the stored trials advise: make advice, or infscale advice with options of your own.
advice: $(DRAW)/.complete
	$(DRAW)/bin/infscale --end-with-parent advice

# Exploring leaves git clean: JupyterLab opens copies. A copy is replaced when its notebook has changed since, and is
# kept beside the new one (NAME.ipynb.~1~). Root gets namespaces for links (F=network), and JupyterLab, which listens on
# this machine alone, with a token.
lab: .venv/.complete
	mkdir -p data/notebooks
	cp --update --backup=numbered $(wildcard notebooks/*.ipynb) data/notebooks/
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) data/notebooks

# The documentation as a site, in docs/_build/index.html. Anything that is not in order is an error, such as a link of a page
# that leads nowhere.
docs: .venv/.complete
	$(BIN)/sphinx-build --quiet --fresh-env --fail-on-warning --nitpicky --jobs auto docs docs/_build

# The load engine beside other load generators (25 minutes at most); benchmarks/README.md. BENCH=--quick for a short one.
bench: .venv/.complete
	$(BIN)/python -m benchmarks.bench $(BENCH)

# A million hostile inputs for every parser that faces a network or a file (half an hour); FUZZ="http1_reply --runs 10000".
fuzz: .venv/.complete
	$(BIN)/python -m benchmarks.fuzz $(FUZZ)

check: .venv/.complete
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/nbstripout --verify $(wildcard notebooks/*.ipynb)

# The wheel, installed without extras into an empty environment, outside a checkout (four minutes).
release:
	$(PYTHON) .ci/release.py

# What PyPI's advisories say of the pinned packages; "no advisory data" where the package index has none.
audit:
	$(PYTHON) .ci/audit.py

format: .venv/.complete
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Everything that measuring, testing and JupyterLab need; the same pinned set as environment.yml. The project comes first:
# pip then says at once that it needs another Python. Python compiles a module when it is first imported; pip
# would compile all of them, also the many that nobody imports.
.venv/.complete: requirements.txt pyproject.toml $(call stale,.venv)
	$(if $(call stale,.venv),$(PYTHON) -m venv --clear .venv)
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet --no-compile --index-url $(TORCH_INDEX) $(shell grep '^torch==' requirements.txt))
	$(BIN)/python -m pip install --quiet --no-compile --requirement requirements.txt
	touch $@

# Only what drawing needs, at the same versions.
.venv-figures/.complete: requirements.txt pyproject.toml $(call stale,.venv-figures)
	$(if $(call stale,.venv-figures),$(PYTHON) -m venv --clear .venv-figures)
	.venv-figures/bin/python -m pip install --quiet --no-compile --constraint requirements.txt --editable .
	touch $@

clean:
	rm -rf .venv .venv-figures .mypy_cache .ruff_cache .pytest_cache .hypothesis data/models data/derived docs/_build build dist
