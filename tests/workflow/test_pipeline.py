"""The whole path on small models: what is made, what is said, and what reports show."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from helpers.project import GRID, ROOT, Project
from mcuforge.artifacts import Artifact
from mcuforge.experiment import Experiment
from mcuforge.formats.tflite.describe import describe

SHARED_MODELS = ROOT.parent / "shared" / "data" / "models"


def rows(project: Project) -> list[dict[str, str]]:
    with (project.path / "results" / "summary.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_cell_has_an_exact_row(finished: Project) -> None:
    found = rows(finished)
    assert [(r["model"], r["board"], r["toolchain"], int(r["opt_level"])) for r in found] == [
        (model, board, "gcc", level)
        for model in GRID["models"]
        for board in GRID["boards"]
        for level in GRID["opt_levels"]
    ]
    for row in found:
        assert (row["status"], row["exact"], float(row["max_abs_error"])) == ("ok", "true", 0), row
        assert row["timebase"] == "instructions"
        assert int(row["instructions"]) > 1000
        assert 0 < int(row["workspace_lower_bound_bytes"]) <= int(row["workspace_bytes"])
        assert int(row["flash_bytes"]) > int(row["code_bytes"]) > 0


def test_tables_and_figures_are_there(finished: Project) -> None:
    results = finished.path / "results"
    assert (
        (results / "tables" / "levels.csv")
        .read_text()
        .startswith("model,board,toolchain,timebase,O1")
    )
    assert "mps3_an547_with" in (results / "tables" / "boards.csv").read_text()
    assert {p.name for p in (results / "figures").iterdir()} == {
        "boards.svg",
        *(f"{model}.{kind}.svg" for model in GRID["models"] for kind in ("levels", "memory")),
    }


def test_every_job_has_a_log_of_its_own(finished: Project) -> None:
    logs = finished.path / "results" / "logs"
    assert (logs / "mlf" / "tiny" / "cortex-m7-c" / "O1.log").is_file()
    assert (logs / "bench" / "tiny" / "mps2_an500" / "gcc" / "O1" / "performance.log").is_file()


def test_cycles_are_modelled_from_the_firmware_that_is_there(finished: Project) -> None:
    target = "results/bench/tiny/mps2_an500/gcc/O3/cycles.json"
    assert finished.plan(target) == {"measure": 1}
    finished.run(target)
    record = json.loads((finished.path / target).read_text())
    assert (record["status"], record["timebase"]) == ("ok", "model")
    assert record["cycles_model"].startswith("cortex-m7/")
    assert record["causes"]["data_misses"] < record["cycles_modelled"]
    table = "results/cycles/tiny/mps2_an500/gcc/O3.csv"
    finished.run(table)
    with (finished.path / table).open() as file:
        operators = list(csv.DictReader(file))
    assert sum(int(row["cycles_modelled"]) for row in operators) < record["cycles_modelled"]
    assert 0.9 < sum(float(row["share"]) for row in operators) < 1
    finished.edit("config/boards.yaml", "line_cycles: 12", "line_cycles: 14")
    assert finished.plan(target) == {"measure": 1}


def test_one_cell_can_be_asked_for(fresh: Project) -> None:
    target = "results/bench/tiny/mps2_an500/gcc/O3/performance.json"
    assert fresh.plan(target) == {
        "fetch_model": 1,
        "make_vectors": 1,
        "compile_model": 1,
        "check_model": 1,
        "build_firmware": 1,
        "measure": 1,
    }


def test_an_object_file_is_checked_by_the_c_of_its_kernels(fresh: Project) -> None:
    plan = fresh.plan("results/firmware/tiny/mps3_an547/tvm-llvm/O3/firmware.elf")
    assert (plan["compile_model"], plan["check_model"]) == (2, 1)


def test_profiles_and_the_performance_document_can_be_asked_for(finished: Project) -> None:
    target = "results/profile/tiny/mps2_an500/gcc/O3.csv"
    assert finished.plan(target) == {
        "build_profile_firmware": 1,
        "measure": 1,
        "operator_profile": 1,
    }
    assert finished.plan("--config", "modes=[performance,profile]")["operator_profile"] == 8
    cell = ("--config", "models=[tiny]", "boards=[mps2_an500]")
    finished.run(*cell, "--", "docs/performance.md")  # needs the profile of the best cell
    document = (finished.path / "docs" / "performance.md").read_text()
    assert "<summary>tiny/mps2_an500/gcc/O3</summary>" in document
    assert len(list((finished.path / "docs" / "performance").glob("*.svg"))) == 3
    with (finished.path / target).open() as file:
        operators = list(csv.DictReader(file))
    assert [o["operator"] for o in operators] == ["conv2d", "fully_connected"]
    total = sum(int(o["count"]) for o in operators)
    assert total == pytest.approx(int(operators[0]["inference"]), rel=0.02)
    assert (finished.path / target).with_suffix(".svg").is_file()


def test_the_same_cell_twice_gives_the_same_bytes(finished: Project) -> None:
    mlf = Path("results/mlf/tiny/cortex-m7-c/O3.tar")
    elf = Path("results/firmware/tiny/mps2_an500/gcc/O3/firmware.elf")
    before = [(finished.path / path).read_bytes() for path in (mlf, elf)]
    shutil.rmtree(finished.path / "results" / "mlf")
    shutil.rmtree(finished.path / "results" / "firmware")
    finished.run(str(elf))
    assert [(finished.path / path).read_bytes() for path in (mlf, elf)] == before


def test_the_report_has_tables_figures_and_captions(finished: Project) -> None:
    finished.run("--report", "results/report.html")
    report = (finished.path / "results" / "report.html").read_text()
    assert "Instructions, counted exactly, for emulated boards" in report
    assert "boards.svg" in report


def test_a_slurm_dry_run_works_without_slurm(fresh: Project) -> None:
    assert fresh.plan("--profile", "profiles/slurm")["compile_model"] == 8
    rules = (fresh.path / "workflow" / "rules").glob("*.smk")
    lists = [re.findall(r"^localrules:\n((?:    .*\n)+)", rule.read_text(), re.M) for rule in rules]
    local = {name.strip(" ,") for found in lists for names in found for name in names.splitlines()}
    assert {"measure", "fetch_model", "summary"} <= local
    assert not {"compile_model", "check_model", "build_firmware"} & local


def test_another_workflow_can_have_it_as_a_module(fresh: Project, tmp_path: Path) -> None:
    other = Project(tmp_path / "other")
    shutil.copytree(fresh.path / "config", other.path / "config")
    shutil.copy(fresh.path / "tiny.tflite", other.path)
    (other.path / "Snakefile").write_text(
        'configfile: "config/config.yaml"\n'
        f'module mcuforge:\n    snakefile: "{fresh.path / "Snakefile"}"\n    config: config\n'
        "use rule * from mcuforge\n"
    )
    other.run("results/mlf/tiny/cortex-m7-c/O1.tar", PYTHONPATH="")
    assert (other.path / "results/mlf/tiny/cortex-m7-c/O1.tar").is_file()


def test_an_emulated_grid_needs_no_hardware_map(fresh: Project) -> None:
    (fresh.path / "config" / "hardware-map.yaml").unlink()
    fresh.configure(registries={"models": "config/models.yaml", "boards": "config/boards.yaml"})
    assert fresh.plan()["measure"] == 8


def test_physical_boards_have_a_limit_in_the_profile(fresh: Project) -> None:
    config = yaml.safe_load((fresh.path / "config" / "config.yaml").read_text())
    profile = (fresh.path / "profiles" / "default" / "config.yaml").read_text()
    boards = Experiment(config, fresh.path).physical_boards
    assert boards
    assert yaml.safe_load(profile)["resources"] == dict.fromkeys(boards, 60)


@pytest.mark.parametrize(("count", "share"), [(1, 60), (2, 30)])
def test_as_many_jobs_run_on_a_type_as_boards_are_connected(
    finished: Project, count: int, share: int
) -> None:
    entries = [
        {"connected": True, "id": f"n{i}", "platform": "nucleo_h743zi", "serial": f"/dev/ttyX{i}"}
        for i in range(count)
    ]
    (finished.path / "config" / "hardware-map.yaml").write_text(yaml.safe_dump(entries))
    planned = finished.run("-n", "results/bench/tiny/nucleo_h743zi/clang/O1/performance.json")
    assert f"nucleo_h743zi={share}," in planned


def test_a_firmware_too_large_for_its_board_is_a_row(fresh: Project) -> None:
    path = fresh.path / "config" / "boards.yaml"
    boards = yaml.safe_load(path.read_text())
    for memory in boards["mps2_an500"]["memories"]:
        if "weights" in memory["holds"]:
            memory["size"] = "4K"
    path.write_text(yaml.safe_dump(boards, sort_keys=False))
    fresh.configure(models=["tiny"], boards=["mps2_an500"], opt_levels=[1])
    fresh.run()
    (row,) = rows(fresh)
    assert row["status"] == "does_not_fit"
    assert int(row["missing_flash_bytes"]) > 0
    assert row["instructions"] == row["exact"] == ""
    record = json.loads(
        (fresh.path / "results/bench/tiny/mps2_an500/gcc/O1/performance.json").read_text()
    )
    assert record["missing_flash_bytes"] == int(row["missing_flash_bytes"])


@pytest.mark.skipif(not SHARED_MODELS.is_dir(), reason="no ../shared/data/models")
def test_the_overlay_gets_the_reference_models_from_a_directory(fresh: Project) -> None:
    fresh.configure(models=["tiny"])
    names = ("kws", "vww", "ic", "ad", "sww")
    wanted = [Artifact.MODEL.format(model=name) for name in names]
    overlay = ("--configfile", "config/mlperf-tiny.yaml")
    fresh.run(*overlay, "--", *wanted, MCUFORGE_MODELS=str(SHARED_MODELS))
    facts = [describe((fresh.path / path).read_bytes(), "model") for path in wanted]
    assert [f.macs for f in facts] == [2_656_768, 7_489_664, 12_501_632, 264_192, 826_368]
    assert fresh.plan(*overlay)["measure"] == 5 * 4
