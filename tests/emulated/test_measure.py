"""From a compiled model to a record, on every emulated board."""

import dataclasses
import time

import numpy as np
import pytest

from helpers import fake_mlf
from mcuforge.boards import Instance, qemu
from mcuforge.errors import BoardError, ConfigError
from mcuforge.firmware.builder import build
from mcuforge.firmware.project import Order
from mcuforge.results.columns import Measurement, Size
from mcuforge.runner import session
from mcuforge.runner.device import Device

RISCV = "qemu_virt_rv32"
BOARDS = ["mps2_an386", "mps2_an500", "mps3_an547", RISCV]
TOOLCHAINS = ["gcc", "clang"]
# As many instructions as it says, but for a handful.
SPIN = """
    uint32_t n = {count} / 2;
    __asm volatile("1: subs %0, %0, #1\\n\\tbne 1b" : "+r"(n) : : "cc");
"""
SPIN_RISCV = """
    uint32_t n = {count} / 2;
    __asm volatile("1: addi %0, %0, -1\\n\\tbnez %0, 1b" : "+r"(n));
"""


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("toolchain", TOOLCHAINS)
def test_performance_mode(built, tmp_path, board, toolchain):
    firmware = built(board, toolchain)
    record = firmware.measure()
    assert (record.status, record.exact, record.max_abs_error) == ("ok", True, 0.0)
    assert record.timebase == "instructions" and record.board_instance.startswith("qemu-")
    assert len(record.laps) == len(record.outputs) == len(record.inputs_sha256) == 5
    assert {lap["iterations"] for lap in record.laps} == {1}
    assert record.latency_us == pytest.approx(record.instructions / 1000, abs=5e-4)
    assert 50 < record.instructions < 2000
    size = Size.read(firmware.size)
    assert record.stack_bytes <= size.stack_bound_bytes
    # With 31 registers it may need none.
    assert (record.stack_bytes > 0) == (size.stack_bound_bytes > 0)
    assert (record.build_id, record.flash_bytes) == (size.build_id, size.flash_bytes)
    assert record.emulator_version == f"qemu {qemu.version(firmware.board.core)}"
    record.write(tmp_path / "record.json")
    assert Measurement.read(tmp_path / "record.json") == record

    again = firmware.measure()
    assert [lap["ticks"] for lap in again.laps] == [lap["ticks"] for lap in record.laps]


@pytest.mark.parametrize(
    ("board", "spin", "per_tick"),
    list(zip(BOARDS, [SPIN, SPIN, SPIN, SPIN_RISCV], [40, 40, 31.25, 0], strict=True)),
)
def test_instructions_are_counted_exactly(built, board, spin, per_tick):
    few, many = (built(board, body=spin.format(count=n)) for n in (2000, 1_002_000))
    difference = many.measure().instructions - few.measure().instructions
    assert difference == pytest.approx(1_000_000, abs=per_tick + 1)


def test_the_counter_does_not_wrap(built):
    """SysTick wraps after 2**24 ticks, 671 million instructions."""
    few, many = (built(body=SPIN.format(count=n)) for n in (2000, 1_400_002_000))
    with many.device() as device, few.device() as reference:
        device.client.load(bytes(16))
        reference.client.load(bytes(16))
        ticks = device.client.infer(1, 0, 120).ticks - reference.client.infer(1, 0, 10).ticks
    assert ticks * 40 == pytest.approx(1_400_000_000, abs=200)  # two interrupts


def test_iterations_are_averaged_and_warm_up_is_not_counted(built):
    firmware = built()
    record = firmware.measure(iterations=7, warmup=3)
    assert {lap["iterations"] for lap in record.laps} == {7}
    for lap in record.laps:
        assert lap["ticks_min"] * 7 <= lap["ticks"] <= lap["ticks_max"] * 7
    assert record.instructions == firmware.measure().instructions


def test_setup_mode_uses_one_input(built):
    record = built().measure(mode="setup", iterations=2)
    assert len(record.laps) == 1 and record.mode == "setup"


def test_vendor_and_baud_rate_are_the_boards(built, tmp_path):
    """Energy mode talks at 9600 baud; QEMU's serial port has no speed, the divider has to do."""
    board = dataclasses.replace(built().board, baud=9600, vendor="ACME board-2")
    elf, size, project = tmp_path / "firmware.elf", tmp_path / "size.json", tmp_path / "project"
    archive = fake_mlf.write(tmp_path / "model.tar")
    build(Order(archive, board, "gcc"), elf, size, project)
    assert "#define BOARD_BAUD 9600u" in (project / "generated" / "board.h").read_text()
    instance = Instance(id="qemu", board=board.name, baud=9600)
    with Device(board, instance, elf, Size.read(size).build_id) as device:
        assert device.profile.name == "ACME board-2"
        device.client.load(bytes(16))
        assert device.client.infer(1, 0, 10).count == 1


def test_a_wrong_answer_is_a_mismatch_with_its_error(built, tmp_path):
    firmware = built()
    with np.load(firmware.vectors) as arrays:
        inputs, outputs = arrays["inputs"], arrays["outputs"].view(np.int8).copy()
    outputs[3, 1] += 5 if outputs[3, 1] < 100 else -5
    vectors = tmp_path / "vectors.npz"
    np.savez(vectors, inputs=inputs, outputs=outputs.view(np.uint8))
    record = firmware.measure(vectors=vectors)
    assert (record.status, record.exact, record.max_abs_error) == ("mismatch", False, 5.0)


def test_several_tensors_of_several_types(built, tmp_path):
    firmware = built(mixed=True)
    values = np.array([[3, -4, 5], [7, 0, -128]] * 3, np.int8)[:5]
    factors = np.array([[0.1, 1e-3], [-2.5, 1e30]] * 3, "<f4")[:5]
    scaled = values.astype("<f4") * factors[:, [0, 1, 0]]
    vectors = tmp_path / "vectors.npz"
    np.savez(
        vectors,
        inputs=np.hstack([values.view(np.uint8), factors.view(np.uint8)]),
        outputs=np.hstack([scaled.view(np.uint8), values[:, 2:].view(np.uint8)]),
    )
    record = firmware.measure(vectors=vectors)
    assert (record.status, record.exact) == ("ok", True)
    with firmware.device() as device:
        device.client.load(values[0].tobytes() + factors[0].tobytes())
        lines = device.client.command("infer 1 0")
    (results,) = (line for line in lines if line.startswith("m-results-["))
    shown = [float(x) for x in results[len("m-results-[") : -1].split(",")]
    assert shown == pytest.approx([*scaled[0], values[0, 2]], abs=1e-6)


def dataset(directory, count=20, correct=15):
    directory.mkdir()
    inputs = np.random.default_rng(11).integers(-128, 128, (count, 16), dtype=np.int8)
    predictions = fake_mlf.run(inputs).argmax(axis=1)
    labels = [int(p) if i < correct else (int(p) + 1) % 4 for i, p in enumerate(predictions)]
    for index, row in enumerate(inputs):
        (directory / f"{index}.bin").write_bytes(row.tobytes())
    lines = [f"{index}.bin,4,{label}" for index, label in enumerate(labels)]
    (directory / "y_labels.csv").write_text("\n".join(lines) + "\n")
    return directory, predictions.tolist()


def test_accuracy_mode(built, tmp_path):
    directory, predictions = dataset(tmp_path / "data")
    seen = []
    record = built().measure(
        mode="accuracy",
        data_set=directory,
        quality_target=0.8,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert record.accuracy == 0.75 and record.valid is False and record.quality_target == 0.8
    assert record.predictions == predictions
    assert len(record.inputs_sha256) == 20 and seen[-1] == (20, 20)
    assert built().measure(mode="accuracy", data_set=directory, quality_target=0.75).valid


def test_the_data_sets_of_images_and_of_features_go_through_the_same_model(built, tmp_path):
    directory, predictions = dataset(tmp_path / "data", correct=20)
    for path in directory.glob("*.bin"):
        path.write_bytes((np.frombuffer(path.read_bytes(), np.uint8) ^ 0x80).tobytes())
    record = built(benchmark="ic01").measure(mode="accuracy", data_set=directory)
    assert record.predictions == predictions and record.valid is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "energy"}, "power monitor"),
        ({"mode": "speed"}, "valid modes: setup, performance, accuracy"),
        ({"mode": "accuracy"}, "needs a data set"),
    ],
)
def test_modes_that_cannot_be_measured(built, arguments, message):
    with pytest.raises(ConfigError, match=message):
        built().measure(**arguments)


def test_vectors_of_another_model_are_refused(built, tmp_path):
    vectors = tmp_path / "vectors.npz"
    np.savez(vectors, inputs=np.zeros((5, 9), np.uint8), outputs=np.zeros((5, 4), np.uint8))
    with pytest.raises(ConfigError, match=r"inputs has the shape \(5, 9\)"):
        built().measure(vectors=vectors)


def test_what_does_not_fit_is_recorded_without_running(built, tmp_path, monkeypatch):
    firmware = built()
    size = Size.read(firmware.size)
    document = {**vars(size), "fits": False, "missing_flash_bytes": 10, "missing_ram_bytes": 20}
    Size(**document).write(tmp_path / "size.json")
    monkeypatch.setattr(qemu, "Qemu", None)
    record = firmware.measure(size=tmp_path / "size.json")
    assert record.status == "does_not_fit" and (
        record.missing_flash_bytes,
        record.missing_ram_bytes,
    ) == (10, 20)
    assert record.instructions is None and record.exact is None
    record.to_json()


@pytest.mark.parametrize("board", BOARDS)
def test_a_fault_is_reported(built, board):
    with pytest.raises(BoardError, match=r"answers 'infer 1 0' with e-\[Fault"):
        built(board, body="__builtin_trap();").measure()


@pytest.mark.parametrize("board", BOARDS)
def test_a_stack_overflow_is_reported(built, board):
    size = built(board).board.stack_bytes + 800
    body = (
        f"volatile char array[{size}]; for (int i = {size - 1}; i >= 0; i--) array[i] = 1;"
        '__asm volatile("" : : "r"(array) : "memory");'
    )
    with pytest.raises(BoardError, match=r"e-\[(Fault|Stack overflow)"):
        built(board, body=body).measure()


@pytest.mark.parametrize("board", ["mps2_an500", RISCV])
def test_a_board_is_ready_again_after_a_fault(built, board):
    with built(board, body="if (inputs->input_1[0]) __builtin_trap();").device() as device:
        device.client.load(bytes([1] * 16))
        with pytest.raises(BoardError, match="Fault"):
            device.client.infer(1, 0, 10)
        device.client.synchronize(10)
        device.client.load(bytes(16))
        assert device.client.infer(1, 0, 10).count == 1


def test_an_inference_that_fails_is_an_error(built):
    with pytest.raises(BoardError, match=r"Inference failed: -7"):
        built(result="-7").measure()


def test_a_model_that_never_ends_is_given_up(built, monkeypatch):
    monkeypatch.setattr(session, "_INFER_TIMEOUT_S", 0.5)
    started = time.monotonic()
    with pytest.raises(BoardError, match="did not complete its reply to 'infer 1 0'"):
        built(body='for (;;) __asm volatile("");').measure()
    assert time.monotonic() - started < 60
