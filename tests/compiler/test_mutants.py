"""Files nobody made on purpose: an archive or one line, never a crash, silence or gigabytes."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from helpers import mutants, strategies, tiny

TESTS = Path(__file__).parents[1]
CASES = Path(__file__).parents[3] / "shared" / "data" / "cases"
COUNT, PARTS = 4000, 4
# Larger files take longer to compile and are no other kinds.
MOST_BYTES = 16 << 10


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small models of every operator and type, and the small ones of ../shared."""
    directory = tmp_path_factory.mktemp("corpus")
    (directory / "tiny.tflite").write_bytes(tiny.model(float_io=True))
    for op, (strategy, dtypes) in strategies.OPERATORS.items():
        for dtype in dtypes:
            for index, model in enumerate(_drawn(strategy(dtype))):
                (directory / f"{op}-{dtype}-{index}.tflite").write_bytes(model)
    for path in CASES.glob("*.tflite"):
        if path.stat().st_size < MOST_BYTES:
            (directory / f"case-{path.name}").write_bytes(path.read_bytes())
    return directory


def _drawn(cases) -> list[bytes]:
    models: list[bytes] = []

    @settings(
        max_examples=3,
        database=None,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def draw(case: strategies.Case) -> None:
        models.append(case.model)

    draw()
    return models


@pytest.mark.parametrize("part", range(PARTS))
def test_a_mutant_compiles_or_is_refused_on_one_line(
    part: int, corpus: Path, tmp_path: Path
) -> None:
    """Within 60 s of CPU and 2 GB, whatever the target and level; some are run against LiteRT."""
    first, last = part * COUNT // PARTS, (part + 1) * COUNT // PARTS
    outcomes: dict[int, str] = {}
    while first < last:
        command = [sys.executable, "-m", "helpers.mutants"]
        command += [corpus, tmp_path, str(first), str(last)]
        done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, errors="replace")
        for line in done.stdout.splitlines():
            number, _, outcome = line.partition(" ")
            outcomes[first := int(number)] = outcome
        if outcomes.get(first, "starts") == "starts":
            outcomes[first] = f"WRONG: ends the process: {done.returncode} {done.stderr[-300:]}"
        first += 1
    wrong = {n: outcome for n, outcome in outcomes.items() if outcome.startswith("WRONG")}
    assert not wrong, "\n".join(f"{n} {outcome}" for n, outcome in sorted(wrong.items()))
    # The test tests: not all mutants are broken, and some are compared.
    for kind, least in (("refused", 0.3), ("compiled", 0.1), ("exact", 0.005)):
        assert sum(o.startswith(kind) for o in outcomes.values()) > least * len(outcomes), kind


def test_mutants_are_the_same_every_time(corpus: Path) -> None:
    models = mutants.corpus(corpus)
    assert [mutants.mutant(models, n) for n in range(20)] == [
        mutants.mutant(models, n) for n in range(20)
    ]
