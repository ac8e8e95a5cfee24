# Two commands: `make demo` shows what mechunlearn does, `make test` that it is right. Both install first, once.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test studies notebooks check format benchmark readme reliability clean

demo: .venv/installed
	$(BIN)/mechunlearn demo --out runs/demo

# One thread a process: two workers fill two cores, and small models gain nothing from more threads.
test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --durations 10 -m "not study and not notebook"

# A quick look at every long study, from the organism to its page.
studies: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --durations 3 -m study

# Every notebook from top to bottom, and whether its key figures are still those that it shows.
notebooks: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --durations 10 -m notebook

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python -c 'from mechunlearn.cli.listing import KEPT, listed; KEPT.write_text(listed(), encoding="utf-8")'

# Every block of the README at full length, its results written under it, and the picture. Half an hour.
readme: demo
	$(BIN)/python analyses/demo_picture.py runs/demo
	$(BIN)/python -m tests.readme

benchmark: .venv/installed
	$(BIN)/python analyses/benchmarks/sweep.py --json analyses/results/benchmark_sweep.json
	$(BIN)/python analyses/benchmarks/unlearning_step.py --json analyses/results/benchmark_unlearning_step.json

# What breaks it: interrupts, kills, two processes on one folder, large vocabularies, wrong input of every kind. An hour.
HARD := interrupts kills pairs memory bad_lines bad_calls mutated_folders
reliability: .venv/installed
	for name in $(HARD); do \
	  OMP_NUM_THREADS=1 $(BIN)/python analyses/reliability/$$name.py --json analyses/results/reliability_$$name.json || echo $$name: see its figures; done
	$(BIN)/python analyses/reliability/page.py

.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mechunlearn needs Python 3.11 or newer; try: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf .venv runs build *.egg-info .pytest_cache .ruff_cache .hypothesis
