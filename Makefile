# `make verdict`: a first answer. `make tutorial`: everything a reader sees, from nothing. `make test`: everything that is
# checked.
# Needs Python 3.11 to 3.13 and make.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
export GUARD_UTILS_CACHE ?= $(HOME)/.cache/guard_utils
# pip compiles nothing here, so what Python compiles when it is imported has to be kept, also where a container says not.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: verdict tutorial further test notebooks book book-check check clean

# What the guard says of a text, as typed: make would expand the `$5` of a `$500`.
TEXT ?= Could you ask Carmen whether 109.4.61.213 is still ours?
verdict: export GIVEN := $(value TEXT)
verdict: $(VENV)/.installed
	@$(RUN) -m guard_utils verdict "$$GIVEN"

tutorial: $(VENV)/.installed
	$(RUN) -m guard_utils fetch --all
	$(RUN) -m tools.notebooks run --profile laptop --last 05
	$(RUN) -m tools.publish report laptop

# Going further: 06 and 07, after the tutorial.
further: $(VENV)/.installed
	$(RUN) -m tools.notebooks run --profile laptop

test: $(VENV)/.tested
	@echo "downloads, ruff and mypy, side by side"
	@$(RUN) -m guard_utils fetch --all & fetched=$$!; \
	{ $(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy; }; checked=$$?; \
	wait $$fetched && exit $$checked
	OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder

# Rebuilds the committed notebooks, with the outputs of the laptop profile. Where numbers have moved, write them down
# (`.venv/bin/python -m tools.publish expected laptop artifacts/laptop`, then `readme laptop`) and rebuild: the notebooks
# show what is expected, too.
notebooks: $(VENV)/.installed
	$(RUN) -m tools.notebooks run --profile laptop --keep

# The committed notebooks and the pages beside them as a site: open artifacts/book/index.html.
book: $(VENV)/.book
	rm -rf artifacts/book
	$(RUN) -m sphinx -q -W --keep-going -c tools/book -d artifacts/book-cache . artifacts/book

# Its links, and each page in Chromium: the machine's own or that of `.venv/bin/playwright install chromium`.
book-check: book
	$(RUN) -m tools.book.check artifacts/book

# What this machine can run.
check: $(VENV)/.installed
	$(RUN) -m guard_utils check

# Python compiles what is imported; to compile all that pip unpacks would take a minute more.
INSTALL := $(RUN) -m pip install --quiet --no-compile --editable

$(RUN):
	$(PYTHON) -c "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and 'Python 3.11 to 3.13 is needed; set PYTHON=python3.12, say')"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(RUN)
	$(INSTALL) .
	touch $@

$(VENV)/.tested: pyproject.toml | $(RUN)
	$(INSTALL) ".[dev]"
	touch $(VENV)/.installed $@

$(VENV)/.book: pyproject.toml | $(RUN)
	$(INSTALL) ".[book]"
	touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) artifacts
