# make train · make test · make test-all · make lint · make audit · make docs · make bench: each sets up .venv by itself when it is missing.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
OPT ?= options/quickstart.yml
CODE := archs core datasets losses schedulers tools __init__.py __main__.py setup.py test.py train.py

.PHONY: train test test-all lint audit format docs bench soak clean

train: $(READY)
	$(BIN)/python train.py -opt $(OPT)

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal -q

# Also what takes hours: every shipped option file, networks of full size, long fuzzing.
test-all: $(READY)
	RELUME_SLOW_TESTS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -q

lint: $(READY) audit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@set -e; dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; ln -s "$(CURDIR)" "$$dir/relume"; \
	MYPYPATH="$$dir" $(BIN)/mypy -p relume.core -p relume.archs -p relume.losses -p relume.datasets -p relume.schedulers

# Known vulnerabilities of the versions in constraints.txt, and what in our code looks like a hole (exceptions are named there).
audit: $(READY)
	$(BIN)/bandit -q -c pyproject.toml -r $(CODE)
	$(BIN)/python tools/audit.py

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site, into build/docs; a warning is an error.
docs: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "build/docs/index.html"

bench: $(READY)
	$(BIN)/python tools/benchmark.py

soak: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/soak.py

# The marker is written last, so that an interrupted installation is taken up again.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 10) else f"Relume needs Python 3.10 or newer; $(PYTHON) is {v[0]}.{v[1]}. Try: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]' -c constraints.txt
	touch $(READY)

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache
