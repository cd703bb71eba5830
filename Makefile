# `make reproduce` and `make test` do everything on a fresh machine: virtual environment, install, run.
# LOCKED=1 installs the exact versions of constraints.txt.
PYTHON ?= python3
PAPER ?= all
LOCKED ?=
VENV := .venv

.PHONY: train reproduce report test clean

# The main method of a paper on embedded data: make train, or make train PAPER=bbn.
train: $(VENV)/installed
	$(VENV)/bin/python -m $(if $(filter all,$(PAPER)),lucir,$(PAPER)).train

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
