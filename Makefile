# `make reproduce` and `make test` do everything on a fresh machine: virtual environment, install, run.
# LOCKED=1 installs the exact versions of constraints.txt.
PYTHON ?= python3
PAPER ?= all
LOCKED ?=
VENV := .venv

.PHONY: reproduce report test clean

reproduce: $(VENV)/installed
	$(VENV)/bin/reproduce $(PAPER)

# A static site from committed records alone, results/site/index.html; nothing is trained.
report: $(VENV)/installed
	$(VENV)/bin/reproduce report

test: $(VENV)/installed
	$(VENV)/bin/python -m pytest -n auto

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet --editable '.[test]' $(if $(LOCKED),--constraint constraints.txt)
	touch $@

clean:
	rm -rf $(VENV) results
