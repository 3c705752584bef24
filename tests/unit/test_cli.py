"""The command line: results on stdout, errors on one line."""

import hashlib
from pathlib import Path

import pytest
import tiny
import yaml

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
        ["models", "--registry", "{directory}"],
        ["boards", "--boards", "{directory}/absent.yaml"],
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
        ["project", "absent.tar", "{directory}/project"],
        ["project", "{directory}", "{directory}/project"],
    ],
)
def test_errors_are_one_line(command, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    registered(tmp_path)
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
