"""The unmodified runner of mlcommons/tiny drives the firmware; needs a clone of that repository."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from helpers import fake_mlf
from mcuforge.boards import qemu

CLONE = os.environ.get("MLCOMMONS_TINY", "")
RUNNER = Path(CLONE) / "benchmark" / "runner"
pytestmark = pytest.mark.skipif(
    not (RUNNER / "script.py").is_file(), reason="MLCOMMONS_TINY names no clone of mlcommons/tiny"
)

# The steps of its main.py between finding the board and printing results.
DRIVER = """
import json, sys
from datasets import DataSet
from device_under_test import DUT
from script import Script
port, data, tests, mode, output = sys.argv[1:]
dut = DUT(port, 115200)
with dut:
    facts = [dut.get_name(), dut.get_model(), dut.get_profile()]
script = Script(json.loads(tests)[dut.get_model()])
results = script.run(None, dut, DataSet(data, script.truth), mode)
with open(output, "w") as file:
    json.dump([facts, results], file)
"""


@pytest.mark.parametrize(
    ("mode", "loop", "infer"), [("a", "loop", "infer 1 0"), ("p", "loop 5", "infer 70 10")]
)
def test_its_scripts_run(built, tmp_path, mode, loop, infer):
    inputs = np.random.default_rng(4).integers(-128, 128, (7, 16), dtype=np.int8)
    for index, row in enumerate(inputs):
        (tmp_path / f"{index}.bin").write_bytes(row.tobytes())
    lines = [f"{index}.bin,4,{index % 4}" for index in range(len(inputs))]
    (tmp_path / "y_labels.csv").write_text("\n".join(lines) + "\n")
    steps = {
        "model": "kws01",
        "truth_file": "y_labels.csv",
        "script": [{loop: ["download", infer]}],
    }
    tests = json.dumps({"kws01": steps})
    firmware, output = built(benchmark="kws01"), tmp_path / "results.json"
    with qemu.Qemu(firmware.board, firmware.elf) as machine:
        machine.start()
        time.sleep(0.5)  # it has booted when somebody listens, as a board on a desk
        subprocess.run(
            [sys.executable, "-c", DRIVER, machine.port, str(tmp_path), tests, mode, str(output)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(RUNNER)},
            capture_output=True,
            timeout=120,
            check=True,
        )
    facts, results = json.loads(output.read_text())
    assert facts == ["mcuforge", "kws01", "ULPMark for tinyML Firmware V0.0.1"]
    runs = [result for result in results if "infer" in result]
    expected = (fake_mlf.run(inputs).astype(float) + 3) * 0.25
    assert [run["infer"]["results"] for run in runs] == expected[: len(runs)].tolist()
    assert [run["class"] for run in runs] == [str(index % 4) for index in range(len(runs))]
    assert len(runs) == (5 if mode == "p" else len(inputs))
    if mode == "p":
        assert all(run["infer"]["throughput"] > 0 for run in runs)
