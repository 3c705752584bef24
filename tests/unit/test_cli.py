"""The command line: results on stdout, errors on one line."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from helpers import fake_mlf, tiny
from mcuforge import cli


def registered(directory: Path) -> Path:
    (directory / "tiny.tflite").write_bytes(tiny.model())
    entry = {
        "title": "A tiny model",
        "task": "test",
        "sha256": hashlib.sha256(tiny.model()).hexdigest(),
        "sources": [{"path": str(directory / "tiny.tflite")}],
    }
    (directory / "models.yaml").write_text(yaml.safe_dump({"models": {"tiny": entry}}))
    return directory / "models.yaml"


def test_models_are_listed_and_fetched(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    registry = str(registered(tmp_path))
    assert cli.main(["models", "--registry", registry]) == 0
    assert "tiny         A tiny model" in capsys.readouterr().out
    output = tmp_path / "got.tflite"
    assert cli.main(["fetch", "tiny", "-o", str(output), "--registry", registry]) == 0
    assert output.read_bytes() == tiny.model()


def test_a_model_is_described(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    registered(tmp_path)
    assert cli.main(["describe", str(tmp_path / "tiny.tflite")]) == 0
    out = capsys.readouterr().out
    assert "int8 1x8x8x1, scale 0.5, zero point -3" in out
    assert f"{tiny.MACS:,} multiply-accumulates" in out


def test_a_model_is_compiled(tmp_path: Path) -> None:
    registered(tmp_path)
    output = tmp_path / "tiny.tar"
    assert cli.main(["compile", str(tmp_path / "tiny.tflite"), "-O", "1", "-o", str(output)]) == 0
    assert output.stat().st_size > 1000


@pytest.mark.parametrize(
    "command",
    [
        ["fetch", "absent"],
        ["fetch", "tiny", "-o", "/dev/null/tiny.tflite"],
        ["fetch", "tiny", "-o", "{directory}"],
        ["models", "--registry", "{directory}"],
        ["models", "--registry", "absent.yaml"],
        ["boards", "--boards", "{directory}/absent.yaml"],
        ["boards", "--boards", "{directory}"],
        ["boards", "--map", "{directory}"],
        ["boards", "--detect", "--map", "/dev/null/map.yaml"],
        ["describe", "absent"],
        ["describe", "absent.tflite"],
        ["describe", "{directory}"],
        ["describe", "{directory}/folder.tflite"],
        ["describe", "{directory}/endless.tflite"],
        ["compile", "absent"],
        ["compile", "absent.tflite"],
        ["compile", "{directory}/folder.tflite"],
        ["compile", "{directory}/empty.tflite"],
        ["compile", "{directory}/tiny.tflite", "-O", "1", "-o", "/dev/null/tiny.tar"],
        ["compile", "{directory}/tiny.tflite", "-O", "1", "-o", "{directory}"],
        ["project", "absent.tar", "{directory}/project"],
        ["project", "{directory}", "{directory}/project"],
        ["project", "{directory}/tiny.tar", "/dev/null/project"],
        ["project", "{directory}/tiny.tar", "{directory}/tiny.tar"],
        ["project", "{directory}/tiny.tar", "{directory}/project", "--samples", "absent.npz"],
        ["project", "{directory}/tiny.tar", "{directory}/project", "--samples", "{directory}"],
    ],
)
def test_errors_are_one_line(command, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    registered(tmp_path)
    fake_mlf.write(tmp_path / "tiny.tar")
    (tmp_path / "folder.tflite").mkdir()
    (tmp_path / "empty.tflite").touch()
    (tmp_path / "endless.tflite").symlink_to("/dev/zero")
    command = [word.format(directory=tmp_path) for word in command]
    if command[0] == "fetch":
        command = [*command, "--registry", str(registered(tmp_path))]
    assert cli.main(command) == 1
    err = capsys.readouterr().err
    assert err.startswith("mcuforge: error: ")
    assert err.count("\n") == 1
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".")]  # nothing half-written


def test_an_output_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model = str(registered(tmp_path).with_name("tiny.tflite"))
    (tmp_path / "out").mkdir()
    assert cli.main(["compile", model, "-O", "1", "-o", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == f"mcuforge: error: {tmp_path / 'out'}: Is a directory\n"


def test_an_empty_name_is_not_the_files(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = str(registered(tmp_path).with_name("tiny.tflite"))
    output = tmp_path / "tiny.tar"
    assert cli.main(["compile", model, "--name", "", "-o", str(output)]) == 1
    assert "--name" in capsys.readouterr().err
    assert not output.exists()


def test_an_archive_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    archive = tmp_path / "nothere.tar"
    assert cli.main(["project", str(archive), str(tmp_path / "project")]) == 1
    wanted = f"mcuforge: error: cannot read {archive}: No such file or directory\n"
    assert capsys.readouterr().err == wanted


@pytest.mark.parametrize(
    ("command", "slow"),
    [
        (["--help"], {"tvm", "pandas", "numpy", "requests"}),
        (["models"], {"tvm", "pandas", "numpy", "requests"}),
        (["boards"], {"tvm", "pandas", "numpy", "requests"}),
        (["describe", "tiny.tflite"], {"tvm", "pandas", "requests"}),
        (["project", "tiny.tar", "metal", "--platform", "baremetal"], {"tvm", "pandas"}),
        (["project", "tiny.tar", "zephyr"], {"tvm", "pandas"}),
    ],
)
def test_no_command_loads_what_another_needs(
    command: list[str], slow: set[str], tmp_path: Path
) -> None:
    registered(tmp_path)
    fake_mlf.write(tmp_path / "tiny.tar")
    code = (
        f"import sys; from mcuforge import cli\ntry: cli.main({command})\nexcept SystemExit: pass"
    )
    code += "\nprint(*sys.modules, file=sys.stderr)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert not slow & set(run.stderr.split()), run.stderr[-2000:]
    assert run.stdout
