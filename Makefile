# make summary: set up, run the whole grid, say where the results are
# make test:    set up, then every check and the whole test suite
# make zephyr:  set up, and what building Zephyr firmware needs besides (docs/boards.md)
CORES ?= 4
BIN := .venv/bin

.PHONY: summary test check setup zephyr

summary: setup
	$(BIN)/snakemake --cores $(CORES) results/summary.csv all
	@echo "mcuforge: the results are in results/summary.csv, results/tables/ and results/figures/"

test: check
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint
	git ls-files 'src/mcuforge/device/*.[ch]' | xargs -r $(BIN)/clang-format --dry-run -Werror

setup:
	@envs/setup.sh

zephyr: setup
	$(BIN)/python -m pip install -q --require-hashes -r envs/requirements-zephyr.lock
