# make install            the environment, in .venv
# make test | lint        what has to pass before a commit
# make test-ray           the tests of --executor ray, with Ray (250 MB more) and a cluster of its own
# make fuzz              hostile input for five minutes, chosen by the branches it reaches (atheris), then 5,000 at random
# make reproduce-figure1  the paper's Figure 1; FRESH=1 forgets the shipped results and computes all of them
# make reproduce-figure2  the paper's Figure 2 (500 dimensions): hours, most of them pymoo's; FRESH=1 as above
# make reproduce-wine     the paper's wine network, DATA=FILE if it cannot be downloaded; FRESH=1 as above
# make check              do the algorithms still end where the stored reference says?
# make test-wheel         the package as a user installs it: outside the repository, from a wheel
# make report             one page with claims, figures and tables of what is in results/, in report/index.html
# make quick              the same pipeline, small: under two minutes

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: install test test-ray test-wheel fuzz lint check reproduce-figure1 reproduce-figure2 reproduce-wine report quick

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

test: install
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

test-ray: install
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[ray]'
	$(BIN)/python -m pytest -m ray

fuzz: install
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[fuzz]'
	$(BIN)/python scripts/fuzz_bytes.py
	$(BIN)/python scripts/fuzz.py --n 5000

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy evobench

check: install
	$(BIN)/evobench check

test-wheel: install
	$(BIN)/python scripts/test_wheel.py

reproduce-figure1: install
	$(BIN)/evobench run configs/figure1.yaml $(if $(FRESH),--fresh)
	$(BIN)/evobench compare results/figure1
	$(BIN)/evobench plot results/figure1 --kind box
	$(BIN)/evobench plot results/figure1 --kind convergence

reproduce-figure2: install
	$(BIN)/evobench run configs/figure2.yaml $(if $(FRESH),--fresh)
	$(BIN)/evobench compare results/figure2
	$(BIN)/evobench plot results/figure2 --kind figure2

reproduce-wine: install
	$(BIN)/evobench wine $(if $(DATA),--data $(DATA)) $(if $(FRESH),--fresh)
	$(BIN)/evobench compare results/wine

report: install
	$(BIN)/evobench report results --out report

quick: install
	$(BIN)/evobench run configs/quick.yaml
	$(BIN)/evobench compare results/quick
	$(BIN)/evobench plot results/quick --kind box
	$(BIN)/evobench plot results/quick --kind convergence
