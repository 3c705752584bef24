"""Large grids are planned in reasonable time."""

import resource

import yaml

from helpers import tiny
from helpers.project import Project


def test_a_thousand_cells_are_planned_within_a_minute(fresh: Project) -> None:
    models = [f"model{number}" for number in range(20)]
    for name in models:
        fresh.register(name, tiny.model())
    path = fresh.path / "config" / "boards.yaml"
    known = yaml.safe_load(path.read_text())
    boards = {f"board{number}": known["mps2_an500"] for number in range(10)}
    path.write_text(yaml.safe_dump(known | boards, sort_keys=False))
    fresh.configure(models=models, boards=list(boards), opt_levels=[0, 1, 2, 3, 4])
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    plan = fresh.plan()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 60
    assert plan["measure"] == plan["build_firmware"] == 1000
    assert plan["compile_model"] == plan["check_model"] == 100
