"""Runs a firmware on a board and records what it did: MLPerf Tiny's modes."""

import dataclasses
import hashlib
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from mcuforge import mlf
from mcuforge.boards import locks, qemu
from mcuforge.boards.inventory import Board, Inventory
from mcuforge.comparison import compare
from mcuforge.cycles.predict import predict
from mcuforge.cycles.simulator import Costs
from mcuforge.errors import BoardError, ConfigError
from mcuforge.models.datasets import DataSet
from mcuforge.results.columns import MODES, NO_ENERGY, Measurement, Size
from mcuforge.results.records import gather
from mcuforge.runner.dataset import ANOMALY, anomaly_score, area_under_curve, dequantize, items
from mcuforge.runner.device import Device
from mcuforge.runner.protocol import Inference

PERFORMANCE_INPUTS = 5
# MLPerf Tiny: at least ten iterations and ten seconds an input, after warming up.
_HARDWARE_WARMUP, _HARDWARE_ITERATIONS, _HARDWARE_SECONDS = 1, 10, 10.0
# Under emulation the count is the same each time.
_EMULATED_WARMUP, _EMULATED_ITERATIONS = 0, 1
# A lap lasts ten seconds or ten inferences. A board that takes longer than this hangs.
_INFER_TIMEOUT_S = 900.0

Notify = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Firmware:
    """What runs, and what it must answer.

    Attributes:
        elf, size: what building it wrote; `size` says for which board.
        info: of the compiled model in it.
        vectors: npz with the raw bytes of inputs and of the oracle's outputs, uint8 [n, bytes].
    """

    elf: Path
    size: Path
    info: mlf.Info
    vectors: Path


@dataclass(frozen=True)
class Plan:
    """How to measure; ConfigError for what cannot be.

    Attributes:
        mode: ``setup`` (one input, mean latency), ``performance`` (five inputs, median),
            ``accuracy`` (the whole data set; top-1, or AUC for ad01), ``profile`` (one input;
            every operator by itself, which takes a firmware built for it) or ``cycles`` (one input;
            predicted by a model of the core, without a board).
        warmup, iterations: an input; defaults are MLPerf's on hardware, 0 and 1 under emulation.
        data_set: for accuracy, a directory or a zip file with y_labels.csv.
        quality_target: fraction the accuracy must reach to be valid.
    """

    mode: str = "performance"
    warmup: int | None = None
    iterations: int | None = None
    data_set: Path | None = None
    quality_target: float | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            hint = NO_ENERGY if self.mode == "energy" else f"valid modes: {', '.join(MODES)}"
            raise ConfigError(f"mode '{self.mode}' cannot be measured", hint)
        if self.mode == "accuracy" and self.data_set is None:
            raise ConfigError(
                "mode 'accuracy' needs a data set",
                "name one with the model's key dataset in models.yaml",
            )


def measure(
    firmware: Firmware,
    plan: Plan,
    inventory: Inventory,
    *,
    lock_timeout_s: float = 3600.0,
    on_wait: Notify = lambda message: None,
    progress: Progress = lambda done, total: None,
) -> Measurement:
    """Run a firmware on a board of its type, in one of MLPerf Tiny's modes.

    Args:
        lock_timeout_s: how long to wait for a board that others use.
        on_wait: told once who holds the boards when all are in use.
        progress: told how many of how many inputs are done.

    A firmware that does not fit its board gives a record that says so, without a run. Raises
    ConfigError for what does not go together and BoardError for trouble with the board, which is
    worth a retry and never recorded.
    """
    started = time.monotonic()
    size, info = Size.read(firmware.size), firmware.info
    board = inventory.board(size.board)
    facts = gather(Measurement, firmware=size, archive=info, board=board, plan=plan) | {
        "timebase": "instructions" if board.emulated else "hardware",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if not size.fits:
        return Measurement(status="does_not_fit", duration_s=0.0, **facts)

    stimuli = _stimuli(firmware.vectors, info)
    if plan.mode == "cycles":
        facts |= {"timebase": "model"} | _predicted(firmware, board, stimuli)
        return Measurement(duration_s=round(time.monotonic() - started, 3), **facts)
    instances = inventory.instances(board.name)
    if not instances:
        raise ConfigError(
            f"no {board.name} is connected", "list it in the hardware map, with connected: true"
        )
    if board.emulated:
        facts["emulator_version"] = f"qemu {qemu.version(board.core)}"
    shift = qemu.FINE_SHIFT if plan.mode == "profile" else 0
    with (
        locks.acquire(instances, lock_timeout_s, on_wait) as instance,
        Device(board, instance, firmware.elf, size.build_id, shift) as device,
    ):
        run = _Run(board, device, info, plan, progress)
        results = run.accuracy() if plan.mode == "accuracy" else run.timed(stimuli)
    return Measurement(
        board_instance=instance.id,
        duration_s=round(time.monotonic() - started, 3),
        **facts,
        **results,
    )


@dataclass(frozen=True)
class _Stimuli:
    inputs: list[bytes]
    outputs: list[bytes]


def _stimuli(path: Path, info: mlf.Info) -> _Stimuli:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            inputs, outputs = arrays["inputs"], arrays["outputs"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"cannot read vectors from {path}: {error}") from error
    for name, array, expected in (
        ("inputs", inputs, info.input_bytes),
        ("outputs", outputs, info.output_bytes),
    ):
        if array.ndim != 2 or array.dtype != np.uint8 or array.shape[1] != expected:
            raise ConfigError(
                f"{path}: {name} has the shape {array.shape} and type {array.dtype}",
                f"uint8 [n, {expected}] is expected; make the vectors again",
            )
    return _Stimuli([row.tobytes() for row in inputs], [row.tobytes() for row in outputs])


def _predicted(firmware: Firmware, board: Board, stimuli: _Stimuli) -> dict[str, Any]:
    """What a model of the board's core predicts for the first input, by column."""
    predicted = predict(firmware.elf, firmware.info, board, stimuli.inputs[0])
    assert board.timing is not None
    cycles = predicted.whole.cycles
    return {
        **_compared([predicted.outputs], stimuli.outputs[:1], firmware.info),
        "cycles_modelled": cycles,
        "latency_modelled_us": cycles / board.timing.clock_hz * 1e6,
        "cycles_error_percent": predicted.error_percent,
        "cycles_model": predicted.core.model,
        "cycles_memory": board.timing.source,
        "causes": _causes(predicted.whole),
        "operator_causes": [_causes(costs) for costs in predicted.operators],
        "inputs_sha256": [hashlib.sha256(stimuli.inputs[0]).hexdigest()],
        "outputs": [predicted.outputs.hex()],
    }


def _causes(costs: Costs) -> dict[str, int]:
    return {"cycles": costs.cycles, **dataclasses.asdict(costs)}


def _compared(outputs: list[bytes], expected: list[bytes], info: mlf.Info) -> dict[str, Any]:
    """Whether outputs are what the oracle says, by column."""
    compared = compare(outputs, expected, info.outputs)
    return {
        "status": "mismatch" if compared.wrong else "ok",
        "exact": outputs == expected,
        "max_abs_error": compared.max_abs_error,
    }


class _Run:
    """The modes, on a board that is ready."""

    def __init__(
        self,
        board: Board,
        device: Device,
        info: mlf.Info,
        plan: Plan,
        progress: Progress,
    ) -> None:
        self._emulated = board.emulated
        self._device = device
        self._client = device.client
        self._info = info
        self._progress = progress
        default = _EMULATED_WARMUP if board.emulated else _HARDWARE_WARMUP
        self._warmup = default if plan.warmup is None else plan.warmup
        self._plan = plan
        self._us_per_tick = 1e6 / device.profile.tick_hz / (1 << device.shift)
        self._clock_mhz = (qemu.INSTRUCTIONS_PER_SECOND if board.emulated else board.clock_hz) / 1e6
        expected = info.input_bytes, info.output_bytes
        if expected != (device.profile.input_bytes, device.profile.output_bytes):
            raise BoardError(
                f"{board.name} expects {device.profile.input_bytes} bytes of input and gives "
                f"{device.profile.output_bytes} of output, the model {expected}"
            )

    def timed(self, stimuli: _Stimuli) -> dict[str, Any]:
        """Time as many stimuli as the mode wants; what running showed, by column."""
        mode = self._plan.mode
        count = PERFORMANCE_INPUTS if mode == "performance" else 1
        inputs, expected = stimuli.inputs[:count], stimuli.outputs[:count]
        if len(inputs) < count:
            raise ConfigError(f"mode '{mode}' needs {count} vectors, there are {len(inputs)}")
        runs: list[Inference] = []
        for data in inputs:
            self._client.load(data)
            iterations = self._plan.iterations or self._choose_iterations()
            runs.append(self._client.infer(iterations, self._warmup, _INFER_TIMEOUT_S))
            self._progress(len(runs), count)
        outputs = [self._output(run) for run in runs]
        average = statistics.median if mode == "performance" else statistics.fmean
        ticks = [run.ticks / run.count for run in runs]
        operators = []
        if mode == "profile":
            operators = self._operators(runs[0])
            ticks = [sum(operators)]
        return {
            **_compared(outputs, expected, self._info),
            **self._timing(ticks, average),
            "operators": [round(self._latency_us(t) * self._clock_mhz) for t in operators],
            "laps": [
                {
                    "input": index,
                    "iterations": run.count,
                    "ticks": run.ticks,
                    "ticks_min": run.ticks_min,
                    "ticks_max": run.ticks_max,
                    "latency_us": self._latency_us(run.ticks / run.count),
                }
                for index, run in enumerate(runs)
            ],
            "inputs_sha256": [hashlib.sha256(data).hexdigest() for data in inputs],
            "outputs": [output.hex() for output in outputs],
            "stack_bytes": max(run.stack_bytes for run in runs),
        }

    def accuracy(self) -> dict[str, Any]:
        """Classify, or score, a whole data set; what that showed, by column."""
        assert self._plan.data_set is not None
        data, target = DataSet(self._plan.data_set), self._plan.quality_target
        if len(self._info.inputs) != 1 or len(self._info.outputs) != 1:
            raise ConfigError("accuracy is defined for models with one input and one output")
        tensor, output = self._info.inputs[0], self._info.outputs[0]
        benchmark = self._device.profile.model
        runs: list[Inference] = []
        hashes, labels, predictions, scores = [], [], [], []
        for item in items(data, benchmark, tensor):
            answers = []
            for raw in item.inputs:
                self._client.load(raw)
                runs.append(self._client.infer(1, 0, _INFER_TIMEOUT_S))
                hashes.append(hashlib.sha256(raw).hexdigest())
                answers.append(dequantize(self._output(runs[-1]), output))
            if benchmark == ANOMALY:
                scores.append(anomaly_score(item.features, answers))
            else:
                predictions.append(int(np.argmax(answers[0])))
            labels.append(item.label)
            self._progress(len(labels), len(data.rows))
        if benchmark == ANOMALY:
            accuracy = area_under_curve(np.array(labels), np.array(scores))
        else:
            accuracy = float(np.mean(np.array(labels) == np.array(predictions)))
        return {
            "status": "ok",
            **self._timing([run.ticks for run in runs], statistics.median),
            "inputs_sha256": hashes,
            "dataset_sha256": data.sha256(),
            "accuracy": accuracy,
            "predictions": predictions,
            "scores": scores,
            "valid": None if target is None else accuracy >= target,
            "stack_bytes": max(run.stack_bytes for run in runs),
        }

    def _choose_iterations(self) -> int:
        if self._emulated:
            return _EMULATED_ITERATIONS
        once = self._client.infer(1, 0, _INFER_TIMEOUT_S)
        seconds = max(1, once.ticks) / self._device.profile.tick_hz
        return max(_HARDWARE_ITERATIONS, math.ceil(_HARDWARE_SECONDS / seconds))

    def _operators(self, run: Inference) -> list[float]:
        """Ticks of each operator in one inference."""
        if len(run.operators) != len(self._info.operators):
            raise BoardError(
                f"the board timed {len(run.operators)} operators, the model has "
                f"{len(self._info.operators)}",
                "mode 'profile' needs a firmware built for it",
            )
        return [ticks / run.count for ticks in run.operators]

    def _output(self, run: Inference) -> bytes:
        if len(run.output) != self._device.profile.output_bytes:
            raise BoardError(
                f"the board returned {len(run.output)} bytes of output instead of "
                f"{self._device.profile.output_bytes}"
            )
        return run.output

    def _latency_us(self, ticks: float) -> float:
        return ticks * self._us_per_tick

    def _timing(
        self, ticks: list[float], average: Callable[[list[float]], float]
    ) -> dict[str, float | None]:
        latency_us = self._latency_us(average(ticks))
        per_us = qemu.INSTRUCTIONS_PER_SECOND / 1e6
        instructions = round(latency_us * per_us) if self._emulated else None
        work = instructions or latency_us * self._clock_mhz
        return {
            "instructions": instructions,
            "per_mac": work / self._info.macs_nominal if self._info.macs_nominal else None,
            "latency_us": latency_us,
            "inferences_per_second": 1e6 / latency_us,
        }
