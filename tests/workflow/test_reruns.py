"""What a change makes run again, and nothing else."""

import os
import resource

from helpers.project import Project

DERIVED = {"summary": 1, "tables": 1, "model_figures": 2, "board_figure": 1, "all": 1}


def test_a_finished_grid_runs_nothing(finished: Project) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert finished.plan() == {}
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    assert used < 5  # of processor time: the machine may have other work


def test_times_of_files_do_not_matter(finished: Project) -> None:
    for part in ("src", "config", "profiles", "scripts", "workflow"):
        for file in (finished.path / part).rglob("*"):
            os.utime(file)
    assert finished.plan() == {}


def test_a_figure_style_reruns_the_figures(finished: Project) -> None:
    finished.edit("src/mcuforge/results/figures.py", new="# another style\n")
    assert finished.plan() == {"model_figures": 2, "board_figure": 1, "all": 1}


def test_a_kernel_recompiles_everything(finished: Project) -> None:
    finished.edit("src/mcuforge/operators/conv2d.py", new="# another kernel\n")
    plan = finished.plan()
    assert plan.pop("compile_model") == 8
    assert plan == {"check_model": 8, "build_firmware": 8, "measure": 8} | DERIVED


def test_what_is_checked_and_how_reruns_the_checks(finished: Project) -> None:
    finished.edit("src/mcuforge/check.py", new="# changed\n")
    assert finished.plan() == {"check_model": 8, "build_firmware": 8, "measure": 8} | DERIVED


def test_a_device_source_rebuilds_and_measures_without_compiling(finished: Project) -> None:
    source = next((finished.path / "src/mcuforge/device").rglob("*.c"))
    finished.edit(str(source.relative_to(finished.path)), new="/* changed */\n")
    assert finished.plan() == {"build_firmware": 8, "measure": 8} | DERIVED


def test_a_board_fact_rebuilds_that_board(finished: Project) -> None:
    finished.edit("config/boards.yaml", "mps2_an500:\n", "mps2_an500:\n  stack_bytes: 6144\n")
    assert finished.plan() == {"build_firmware": 4, "measure": 4} | DERIVED


def test_a_flash_runner_changes_nothing_that_is_made(finished: Project) -> None:
    hardware = "results/firmware/tiny/nucleo_h743zi/clang/O1/firmware.elf"
    finished.edit("config/boards.yaml", "[openocd, stm32", "[west, stm32")
    assert finished.plan() == {}
    assert "compile_model" not in finished.plan(hardware)


def test_another_runner_source_measures_again(finished: Project) -> None:
    finished.edit("src/mcuforge/runner/session.py", new="# changed\n")
    assert finished.plan() == {"measure": 8} | DERIVED


def test_another_grid_aggregates_and_keeps_every_measurement(finished: Project) -> None:
    overlay = finished.path / "overlay.yaml"
    overlay.write_text("models: [tiny]\n")
    less = {"summary": 1, "tables": 1, "model_figures": 1, "board_figure": 1, "all": 1}
    assert finished.plan("--configfile", "overlay.yaml") == less
    finished.run("--configfile", "overlay.yaml")
    assert finished.plan() == DERIVED
