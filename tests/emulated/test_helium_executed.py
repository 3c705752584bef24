"""Helium is not only compiled but executed: every multiply-accumulate of a layer by VMLADAV."""

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from helpers import emulator
from helpers.tflite_graphs import Graph, Spec, answer
from mcuforge.compiler import compile_model
from mcuforge.target import Target

PIXELS, CHANNELS = 36, 64
TRACE = re.compile(r"^Trace .*\[[0-9a-f]+/([0-9a-f]+)/", re.M)
INSTRUCTION = re.compile(r"^ *([0-9a-f]+):\s+(\S+)", re.M)


@pytest.mark.parametrize("toolchain", ["gcc", "clang", "tvm-llvm"])
def test_a_pointwise_convolution_runs_on_helium(toolchain: str, tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    graph = Graph()
    x = graph.input(Spec((1, 6, 6, CHANNELS), "int8", 0.05, -128))
    weights = random.integers(-127, 128, (CHANNELS, 1, 1, CHANNELS)).astype(np.int8)
    w = graph.constant(weights, 0.01)
    bias = graph.constant(np.zeros(CHANNELS, np.int32), 0.05 * 0.01)
    y = graph.op(
        "CONV_2D", [x, w, bias], Spec((1, 6, 6, CHANNELS), "int8", 0.1, -128),
        padding="SAME", stride_w=1, stride_h=1, fused_activation_function="RELU",
    )  # fmt: skip
    model = graph.build(y)
    (tmp_path / "m.tflite").write_bytes(model)
    target = Target.parse(f"cortex-m55-{'llvm' if toolchain == 'tvm-llvm' else 'c'}")
    compile_model(tmp_path / "m.tflite", "m", target, 3, tmp_path / "m.tar")
    image = random.integers(-128, 128, (1, 6, 6, CHANNELS)).astype(np.int8)

    emulated = emulator.EmulatedModel(tmp_path / "m.tar", tmp_path / "b", toolchain, ("-O3",))
    rows = image.reshape(1, -1).view(np.uint8)
    (want,) = answer(model, [image])
    np.testing.assert_array_equal(emulated.run(rows)[0].view(np.int8), want.reshape(-1))

    executed = count_instructions(tmp_path / "b")
    products = executed["vmlav.s8"] + executed["vmlava.s8"]
    macs = PIXELS * CHANNELS * CHANNELS
    assert products * 16 == macs
    # The others keep loops and pointers, start the program and carry its inputs and outputs.
    helium = sum(n for name, n in executed.items() if name.startswith("v") or name == "le")
    assert helium > 0.75 * sum(executed.values())
    assert executed["le"] > PIXELS, "no low-overhead loops"
    assert sum(executed.values()) < 0.3 * macs


def count_instructions(directory: Path) -> Counter[str]:
    """Mnemonics of a run of ``model.elf`` on the inputs of the run before, with their counts."""
    objdump = shutil.which("llvm-objdump-19")
    if objdump is None:
        pytest.skip("llvm-objdump-19 is not installed")
    log = directory / "trace.log"
    command = ["qemu-system-arm", "-M", "mps3-an547", "-nodefaults", "-display", "none"]
    command += ["-semihosting-config", "enable=on,target=native", "-kernel", "model.elf"]
    command += ["-singlestep", "-d", "exec,nochain", "-D", str(log)]
    subprocess.run(command, cwd=directory, check=True, stdin=subprocess.DEVNULL, timeout=300)
    text = subprocess.run(
        [objdump, "-d", "--no-show-raw-insn", "--mattr=+mve.fp,+lob", str(directory / "model.elf")],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    names = {int(address, 16): name for address, name in INSTRUCTION.findall(text)}
    return Counter(names.get(int(pc, 16), "?") for pc in TRACE.findall(log.read_text()))
