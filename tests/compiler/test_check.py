"""A compiled model is compared with LiteRT on this machine, and a wrong one is refused."""

import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers import changed_mlf, tiny
from helpers.tflite_graphs import Graph, Spec
from mcuforge import check, cli, formats, mlf
from mcuforge.compiler import compile_model
from mcuforge.errors import ModelError, ToolError
from mcuforge.target import Target

EQUAL = "checked: 25 inputs, all outputs equal LiteRT's"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.tflite"
    path.write_bytes(tiny.model())
    return path


@pytest.fixture(scope="module")
def archive(model: Path) -> Path:
    path = model.with_suffix(".tar")
    compile_model(model, "tiny", Target("cortex-m7"), 3, path)
    return path


def before_run(code: str) -> Callable[[bytes], bytes]:
    """Put C at the start of the run function."""

    def change(source: bytes) -> bytes:
        head, separator, body = source.rpartition(b"tvmgen_tiny_outputs *outputs) {\n")
        return head + separator + code.encode() + body

    return change


@pytest.mark.parametrize("core", ["cortex-m0", "cortex-m7", "cortex-m55", "host"])
def test_a_right_model_is_said_to_be_right(core: str, model: Path, tmp_path: Path) -> None:
    compile_model(model, "tiny", Target(core), 3, tmp_path / "tiny.tar")
    assert check.check_model(tmp_path / "tiny.tar", model) == EQUAL


def test_floats_are_compared_within_a_tolerance(tmp_path: Path) -> None:
    graph = Graph()
    spec = Spec((1, 8), "float32")
    model = tmp_path / "floats.tflite"
    model.write_bytes(graph.build(graph.op("LOGISTIC", [graph.input(spec)], spec)))
    compile_model(model, "floats", Target("cortex-m7"), 2, tmp_path / "floats.tar")
    said = check.check_model(tmp_path / "floats.tar", model)
    assert said == f"{EQUAL} (floats within 1e-05)"


def test_another_constant_is_an_error_that_names_the_first_output(
    model: Path, archive: Path, tmp_path: Path
) -> None:
    wrong = changed_mlf.negate_last_constant(archive, tmp_path / "changed.tar")
    with pytest.raises(
        ModelError, match="'tiny' for cortex-m7 at opt_level 3 is wrong: "
    ) as caught:
        check.check_model(wrong, model)
    assert re.search(r"output '\w+' of input \d+ has -?\d+ at \d, not -?\d+; ", str(caught.value))
    assert re.search(r"\d+ of 75 values differ from LiteRT's", str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("__builtin_trap();", "ends with SIG"),
        ("return 1;", "ends with status 1"),
        ('for (;;) { __asm volatile(""); }', "runs for over"),
        ("this is no C", "cannot be built for this machine: .*error: "),
    ],
)
def test_code_that_does_not_run_is_an_error(
    code: str,
    words: str,
    model: Path,
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(check, "_RUN_TIMEOUT_S", 2)
    wrong = changed_mlf.change(archive, "tvmgen_tiny.c", before_run(code), tmp_path / "changed.tar")
    with pytest.raises(ModelError, match=words) as caught:
        check.check_model(wrong, model)
    assert "\n" not in str(caught.value)


def test_level_0_may_differ_and_says_so(model: Path, archive: Path, tmp_path: Path) -> None:
    read = mlf.read(archive)
    info = dataclasses.replace(read.info, opt_level=0)
    path = tmp_path / "zero.tar"
    inputs = np.zeros((2, info.input_bytes), np.uint8)
    mlf.write(path, mlf.metadata("tiny", info, "", {}), read.members)
    answers = formats.of(model).answers(model, inputs)
    said = check.check(path, inputs, answers ^ np.uint8(1))
    assert said == (
        "checked: 2 inputs; 6 of 6 values differ from LiteRT's, by up to 1: "
        "opt_level 0 computes integers as floats"
    )
    with pytest.raises(ModelError, match="6 of 6 values differ"):
        check.check(archive, inputs, answers ^ np.uint8(1))


def test_vectors_of_another_model_and_objects_are_refused(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="64 bytes of inputs"):
        check.check(archive, np.zeros((1, 3), np.uint8), np.zeros((1, 3), np.uint8))
    read = mlf.read(archive)
    info = dataclasses.replace(read.info, codegen="llvm")
    mlf.write(tmp_path / "o.tar", mlf.metadata("tiny", info, "", {}), read.members)
    with pytest.raises(ModelError, match="check the target cortex-m7-c"):
        check.check(tmp_path / "o.tar", np.zeros((1, 64), np.uint8), np.zeros((1, 3), np.uint8))


def test_a_missing_compiler_is_named_with_its_package(
    model: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ToolError, match="install the Debian package gcc"):
        check.check_model(archive, model)


@pytest.mark.parametrize(
    ("target", "words"), [("cortex-m7-c", ""), ("cortex-m55-llvm", " (the same kernels as C")]
)
def test_the_command_says_what_it_checked(
    target: str, words: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.tar"
    arguments = ["compile", str(model), "--target", target, "-o", str(output), "--check"]
    assert cli.main(arguments) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith(EQUAL + words)
    assert last == str(output) and output.is_file()


def test_the_command_leaves_no_archive_that_is_wrong(
    model: Path,
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wrong = changed_mlf.negate_last_constant(archive, tmp_path / "changed.tar")
    monkeypatch.setattr(
        "mcuforge.compiler.compile_model", lambda *arguments: shutil.copy(wrong, arguments[-1])
    )
    assert cli.main(["compile", str(model), "-o", str(tmp_path / "out" / "a.tar"), "--check"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mcuforge: error: code of 'tiny' for cortex-m7 at opt_level 3 is wrong")
    assert not list((tmp_path / "out").iterdir())
