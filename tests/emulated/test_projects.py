"""Projects to keep: a standalone firmware, built and run by hand."""

import subprocess
from pathlib import Path

from helpers import fake_mlf, standalone
from mcuforge import boards
from mcuforge.firmware.builder import generate
from mcuforge.firmware.project import Purpose, Samples, read_samples

INVENTORY = boards.load(Path(__file__).parents[2] / "config" / "boards.yaml")


def test_a_standalone_firmware_checks_its_samples(tmp_path):
    archive = fake_mlf.write(tmp_path / "model.tar")
    vectors = fake_mlf.write_vectors(tmp_path / "vectors.npz")
    board, project = INVENTORY.board("mps2_an500"), tmp_path / "project"
    samples = read_samples(vectors)
    wrong = bytes([samples.outputs[2][0] ^ 1]) + samples.outputs[2][1:]
    samples = Samples(samples.inputs, (*samples.outputs[:2], wrong))
    generate(archive, project, board, "gcc", Purpose("standalone", samples))
    configure = ["cmake", "-G", "Ninja", "-B", "build", "-DCMAKE_TOOLCHAIN_FILE=toolchain.cmake"]
    for command in (configure, ["cmake", "--build", "build"]):
        subprocess.run([*command], cwd=project, check=True, capture_output=True, timeout=300)
    printed = standalone.output(board.machine, project / "build" / "firmware.elf")
    results = [line for line in printed if line.startswith("sample")]
    assert ["exact, " in line for line in results] == [True, True, False]
    assert "DIFFERENT" in results[2]
