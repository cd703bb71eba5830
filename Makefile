# `make reproduce` and `make test` do everything on a fresh machine: virtual environment, install, run.
PYTHON ?= python3
PAPER ?= all
VENV := .venv

.PHONY: reproduce test clean

reproduce: $(VENV)/installed
	$(VENV)/bin/reproduce $(PAPER)

test: $(VENV)/installed
	$(VENV)/bin/python -m pytest -n auto

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) results
