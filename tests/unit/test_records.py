"""Records: what is written can be read, and nothing else can."""

import dataclasses
import json
from pathlib import Path

import pytest

from mcuforge import mlf
from mcuforge.boards import Board
from mcuforge.errors import ConfigError
from mcuforge.results.columns import Measurement, Operator, OperatorCycles, Row, Size
from mcuforge.results.records import columns, markdown
from mcuforge.runner.session import Plan

SIZE = Size(
    model="tiny",
    board="mps2_an500",
    toolchain="gcc",
    toolchain_version="gcc 12.2.1",
    opt_level=3,
    build_id="0123456789abcdef",
    flash_bytes=6000,
    ram_bytes=8300,
    code_bytes=900,
    weights_bytes=64,
    workspace_bytes=64,
    stack_reserved_bytes=8192,
    stack_bound_bytes=None,
    sections={".text": 3000},
    fits=True,
    missing_flash_bytes=0,
    missing_ram_bytes=0,
)
MEASUREMENT = Measurement(
    status="ok",
    model="tiny",
    board="mps2_an500",
    board_instance="qemu",
    platform="baremetal",
    core="cortex-m7",
    toolchain="gcc",
    toolchain_version="gcc 12.2.1",
    opt_level=3,
    mode="performance",
    timebase="instructions",
    clock_hz=25000000,
    instructions=240,
    latency_us=0.24,
    inferences_per_second=4166666.7,
    laps=[
        {
            "input": 0,
            "iterations": 1,
            "ticks": 6,
            "ticks_min": 6,
            "ticks_max": 6,
            "latency_us": 0.24,
        }
    ],
    inputs_sha256=["0" * 64],
    outputs=["00ff"],
    exact=True,
    max_abs_error=0.0,
    macs=64,
    macs_executed=64,
    flash_bytes=6000,
    code_bytes=900,
    weights_bytes=64,
    ram_bytes=8300,
    workspace_bytes=64,
    missing_flash_bytes=0,
    missing_ram_bytes=0,
    build_id="0123456789abcdef",
    tvm_version="0.27.0",
    mcuforge_version="0.1.0",
    executor="aot",
    model_weights_bytes=64,
    workspace_lower_bound_bytes=64,
    started="2026-01-01T00:00:00+00:00",
    duration_s=0.1,
)


@pytest.mark.parametrize("record", [SIZE, MEASUREMENT])
def test_a_record_survives_its_file(tmp_path, record):
    path = tmp_path / "deep" / "record.json"
    record.write(path)
    assert type(record).read(path) == record
    assert [p.name for p in path.parent.iterdir()] == ["record.json"]
    assert json.loads(path.read_text())["schema"] == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "fine"}, "status: 'fine' is not one of"),
        ({"instructions": 0}, "instructions: 0 is less than"),
        ({"instructions": 1.5}, "instructions: 1.5 is not of type"),
        ({"outputs": ["0g"]}, r"outputs\[0\]"),
        ({"accuracy": 90.2}, "accuracy: 90.2 is greater than the maximum of 1"),
        ({"build_id": "main"}, "build_id"),
        ({"timebase": "seconds"}, "timebase: 'seconds' .*QEMU"),
        ({"laps": [{"input": 0}]}, r"laps\[0\]: 'iterations' is a required property"),
    ],
)
def test_a_wrong_record_is_neither_written_nor_read(tmp_path, changes, message):
    wrong = dataclasses.replace(MEASUREMENT, **changes)
    with pytest.raises(ConfigError, match=message):
        wrong.write(tmp_path / "record.json")
    assert not list(tmp_path.iterdir())
    document = json.loads(MEASUREMENT.to_json()) | changes
    with pytest.raises(ConfigError, match=message):
        Measurement.from_json(json.dumps(document), "record.json")


def test_not_a_number_is_no_result():
    with pytest.raises(ValueError, match="not JSON compliant"):
        dataclasses.replace(MEASUREMENT, latency_us=float("nan")).to_json()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"schema": 2}'])
def test_a_broken_file_is_one_error_that_names_it(tmp_path, content):
    path = tmp_path / "size.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"size\.json") as error:
        Size.read(path)
    assert "\n" not in str(error.value)


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        SIZE.write(tmp_path / "size.json")
    assert not list(tmp_path.iterdir())


def test_the_readme_says_what_each_column_means():
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    for table in (Row, Operator, OperatorCycles):
        assert f"\n\n{markdown(table)}\n\n" in readme, markdown(table)


def test_every_column_has_a_source_that_knows_it():
    """So that a new one cannot be forgotten where its value comes from."""
    sources = {"firmware": Size, "archive": mlf.Info, "board": Board, "plan": Plan}
    for name, column in columns(Measurement).items():
        known = sources.get(column.source)
        assert column.source == "run" or (column.name or name) in {
            field.name for field in dataclasses.fields(known)
        }
