# The same thin targets for people and CI. Needs Python 3.10+ and make; everything else is installed into .venv.

PYTHON ?= python3
# a source tree that this user cannot write (a container's, for example) stays as it is: all goes to the temporary folder
WRITABLE := $(shell test -w . && test -w src && echo yes)
PLACE := $(if $(WRITABLE),,$(or $(TMPDIR),/tmp)/totalrecall-$(shell id -u)/)
VENV := $(PLACE).venv
LOWEST := .venv-lowest
BIN := $(VENV)/bin
COVERAGE := $(abspath $(PLACE).coverage)
# CI installs exact versions; a person gets the newest that fit the Python at hand
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(CI),-c constraints.txt)

.PHONY: demo test quick test-lowest lint format bench docs wheel clean help place

help:
	@echo "make demo    install, then fit, score and report on pictures that the program makes itself"
	@echo "make quick   install with the tools for development, then run the quick tests (about a minute)"
	@echo "make test    all tests, and how much of the code they run"
	@echo "make test-lowest  the same with the lowest versions that are allowed (Python 3.10 or 3.11)"
	@echo "make lint    style and types"
	@echo "make docs    build the docs as a site in site/, which needs no network to read"
	@echo "make bench   speed and memory of this machine"
	@echo "make wheel   build dist/*.whl"

# Anybody can make a folder of that name in /tmp, and what lies in it is run: it must be a folder of this user, no link,
# that nobody else can write.
place:
ifneq ($(PLACE),)
	@mkdir -m 700 $(PLACE) 2>/dev/null || \
	test -n "$$(find $(PLACE:/=) -prune -type d -user $$(id -u) ! -perm -020 ! -perm -002 2>/dev/null)" || \
	{ echo "$(PLACE:/=) is not a folder that this user alone can write. Name another place: make demo TMPDIR=FOLDER" >&2; exit 1; }
endif

$(VENV)/bin/python: | place
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: $(VENV)/bin/python pyproject.toml constraints.txt
ifeq ($(WRITABLE),yes)
	$(PIP) -e .
else
	mkdir -p $(PLACE)source && cp -rf pyproject.toml README.md LICENSE src $(PLACE)source && chmod -R u+w $(PLACE)source
	$(PIP) $(PLACE)source
endif
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e ".[dev]"
	@touch $@ $(VENV)/.base

demo: $(VENV)/.base
	$(BIN)/totalrecall demo --out $(PLACE)totalrecall-demo

# one BLAS thread: on the tests' small arrays more of them only wait for each other; two files of tests at once: most
# keep one core busy, and a file's fits are made once for all of its tests
# in CI each of the two processes is bound to a core (tests/conftest.py)
# counting which lines run takes a fifth more time, which CI's twenty minutes do not have
ifdef CI
test: $(VENV)/.dev
	OPENBLAS_NUM_THREADS=1 ONE_CORE_EACH=1 $(BIN)/python -m pytest -n 2 --dist loadfile
else
test: $(VENV)/.dev
	OPENBLAS_NUM_THREADS=1 COVERAGE_CORE=sysmon COVERAGE_FILE=$(COVERAGE) $(BIN)/python -m pytest -n 2 --dist loadfile --cov=totalrecall --cov-report=
	@$(BIN)/coverage report --data-file=$(COVERAGE) --sort=cover > $(COVERAGE).txt
	@echo "Coverage by lines, the ten lowest files and the total; the whole list is in $(COVERAGE).txt"
	@head -n 12 $(COVERAGE).txt && tail -n 1 $(COVERAGE).txt
endif

# the tests compiled are kept also where the environment forbids it: to compile them takes longer than to read them
quick: $(VENV)/.dev
	PYTHONDONTWRITEBYTECODE= OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

$(LOWEST)/.dev: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-lowest.txt -e ".[dev,hub]"
	@touch $@

# CI has twenty minutes, and the newest versions take most of them. With the lowest it runs the files that call each of
# the dependencies; without CI nothing is left out.
VERSIONS := engines decode tiff in_memory detector model_file search coreset metrics cli report no_home
LOWEST_TESTS := $(if $(CI),$(VERSIONS:%=tests/test_%.py))

test-lowest: $(LOWEST)/.dev
	OPENBLAS_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n 2 --dist loadfile -p no:cacheprovider $(LOWEST_TESTS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

$(VENV)/.docs: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e ".[docs]"
	@touch $@ $(VENV)/.base

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site
	@echo "The docs are in site/. Open site/index.html"

wheel: $(VENV)/.dev
	$(BIN)/python -m build --wheel

clean:
	rm -rf $(VENV) $(LOWEST) build dist site totalrecall-demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
