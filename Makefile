# make summary:   set up, run the whole grid, say where the results are
# make test:      set up, then every check and the whole test suite
# make test-fast: the tests of tests/unit alone
# make check:     format, lint, types
# make coverage:  the whole test suite, and what of each file it runs; child processes, as the
#                 steps of the workflow, do not count
# make golden:    writes tests/golden again, after a change of generated code that is meant
# make zephyr:    set up, and what building Zephyr firmware needs besides (docs/boards.md)
CORES ?= 4
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: summary test test-fast coverage golden check setup zephyr

summary: setup
	$(BIN)/snakemake --cores $(CORES) results/summary.csv all
	@echo "mcuforge: the results are in results/summary.csv, results/tables/ and results/figures/"

test: check
	$(PYTEST)

test-fast: setup
	$(PYTEST) tests/unit

coverage: setup
	$(PYTEST) --cov

golden: setup
	MCUFORGE_GOLDEN=write $(BIN)/python -m pytest tests/compiler/test_golden.py

check: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint
	git ls-files 'src/mcuforge/*.[ch]' | xargs -r $(BIN)/clang-format --dry-run -Werror

setup:
	@envs/setup.sh

zephyr: setup
	$(BIN)/python -m pip install -q --require-hashes -r envs/requirements-zephyr.lock
