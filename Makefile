# `make demo` and `make test` from a fresh clone need Python 3.10 or later, pip and make alone.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
export MPLBACKEND = Agg

.PHONY: demo test test-slow lint clean

demo: $(VENV)/installed
	$(RUN) benchmarks/demo.py

# Two processes of one thread each: most tests wait for small tensors, or for a script to start.
PYTEST = OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile

test: $(VENV)/installed lint
	$(PYTEST)

# Also the tests that take minutes.
test-slow: $(VENV)/installed
	$(PYTEST) --slow

lint: $(VENV)/installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m codespell_lib

$(VENV)/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "$(PYTHON) is too old: Python 3.10 or later is needed (make PYTHON=/path/to/python3)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

clean:
	rm -rf $(VENV) demo
