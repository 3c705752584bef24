"""What goes wrong is said on one line, names the remedy, and leaves nothing behind."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers import changed_mlf, tiny
from helpers.project import Project
from helpers.tflite_graphs import Graph, Spec


def fails(project: Project, *arguments: str, **environment: str) -> str:
    """The one line that says why, of a run that must fail."""
    done = project.snakemake(*arguments, **environment)
    assert done.returncode != 0, done.stdout
    lines = dict.fromkeys(li for li in done.stdout.splitlines() if "mcuforge: error:" in li)
    assert len(lines) == 1, done.stdout
    return next(iter(lines))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("models=[nope]", ["unknown model 'nope'", "valid models:", "tiny"]),
        ("boards=[nope]", ["unknown board 'nope'", "valid boards:", "mps2_an500"]),
        ("opt_levels=[7]", ["opt_levels[0]: 7", "0, 1, 2, 3 or 4"]),
    ],
)
def test_unknown_names_in_the_configuration(fresh: Project, config: str, words: list[str]) -> None:
    line = fails(fresh, "-n", "--config", config)
    assert all(word in line for word in words)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("nope/mps2_an500/gcc/O1", ["unknown model 'nope'", "valid models:", "tiny"]),
        ("tiny/nope/gcc/O1", ["unknown board 'nope'", "valid boards:", "mps2_an500"]),
        ("tiny/mps2_an500/gcc/O9", ["unknown opt_level '9'", "0, 1, 2, 3, 4"]),
        ("tiny/mps2_an500/icc/O1", ["unknown toolchain 'icc'", "gcc, clang, tvm-llvm"]),
    ],
)
def test_an_impossible_cell(fresh: Project, cell: str, words: list[str]) -> None:
    done = fresh.snakemake("-n", f"results/bench/{cell}/performance.json")
    assert done.returncode != 0
    assert any(all(word in line for word in words) for line in done.stdout.splitlines())


def describe(project: Project, content: bytes, **options: str) -> str:
    project.register("bad", content, **options)
    line = fails(project, "results/models/bad.vectors.npz")
    assert not (project.path / "results/models/bad.vectors.npz").exists()
    return line


def test_a_wrong_checksum(fresh: Project) -> None:
    line = describe(fresh, tiny.model(), sha256="0" * 64)
    assert f"expected {'0' * 64}, found" in line
    assert not (fresh.path / "results/models/bad.tflite").exists()


@pytest.mark.parametrize(
    "content",
    [b"", tiny.model()[:700], bytes(np.random.default_rng(0).bytes(3000))],
    ids=["empty", "truncated", "random"],
)
def test_a_file_that_is_no_model(fresh: Project, content: bytes) -> None:
    line = describe(fresh, content)
    assert "model 'bad' is" in line


def test_an_unsupported_operator_is_named_with_its_node(fresh: Project) -> None:
    graph = Graph()
    x = graph.input(Spec((1, 8), "float32"))
    graph_out = graph.op(
        "COS", [graph.op("RELU", [x], Spec((1, 8), "float32"))], Spec((1, 8), "float32")
    )
    fresh.register("bad", graph.build(graph_out))
    line = fails(fresh, "results/mlf/bad/cortex-m7-c/O1.tar")
    assert "COS" in line
    assert "1" in line.split("COS")[1]
    assert not list((fresh.path / "results").rglob("*.tar"))


@pytest.mark.parametrize(
    ("tool", "package"),
    [("qemu-system-arm", "qemu-system-arm"), ("arm-none-eabi-gcc", "gcc-arm-none-eabi")],
)
def test_a_missing_program_is_named_with_its_package(
    finished: Project, tmp_path: Path, tool: str, package: str
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for directory in ("/usr/bin", "/bin", "/usr/local/bin"):
        for program in Path(directory).iterdir() if Path(directory).is_dir() else ():
            link = tools / program.name
            if program.name != tool and not link.exists():
                link.symlink_to(program)
    target = "results/bench/tiny/mps2_an500/gcc/O1/performance.json"
    rule = "measure" if tool.startswith("qemu") else "build_firmware"
    line = fails(finished, "--forcerun", rule, "--", target, PATH=str(tools))
    assert package in line


def test_code_that_answers_wrong_never_becomes_a_firmware(finished: Project) -> None:
    archive = finished.path / "results/mlf/tiny/cortex-m7-c/O3.tar"
    changed_mlf.negate_last_constant(archive, archive)
    firmware = finished.path / "results/firmware/tiny/mps2_an500/gcc/O3"
    shutil.rmtree(firmware)
    line = fails(finished, "results/firmware/tiny/mps2_an500/gcc/O3/firmware.elf")
    assert "code of 'tiny' for cortex-m7 at opt_level 3 is wrong: output" in line
    assert not list(firmware.glob("*"))


def test_a_failure_shows_the_end_of_the_log_and_where_it_is(fresh: Project) -> None:
    fresh.register("bad", b"garbage")
    done = fresh.snakemake("results/models/bad.vectors.npz")
    assert "(log: results/logs/models/bad.vectors.log)" in done.stdout
