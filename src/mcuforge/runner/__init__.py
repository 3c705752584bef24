"""Runs a firmware on a board and records what it did: MLPerf Tiny's modes."""

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
from mcuforge.boards.inventory import Board, Instance, Inventory
from mcuforge.comparison import compare
from mcuforge.errors import BoardError, ConfigError
from mcuforge.models.datasets import DataSet
from mcuforge.results.records import MODES, NO_ENERGY, Measurement, Size
from mcuforge.runner.dataset import ANOMALY, anomaly_score, area_under_curve, dequantize, items
from mcuforge.runner.device import Device
from mcuforge.runner.protocol import Inference

PERFORMANCE_INPUTS = 5
# MLPerf Tiny: at least ten iterations and ten seconds an input, after warming up.
_HARDWARE_WARMUP, _HARDWARE_ITERATIONS, _HARDWARE_SECONDS = 1, 10, 10.0
# Under emulation the count is the same each time.
_EMULATED_WARMUP, _EMULATED_ITERATIONS = 0, 1
_INFER_TIMEOUT_S = 900.0

Notify = Callable[[str], None]
Progress = Callable[[int, int], None]


def measure(
    *,
    elf: Path,
    size: Path,
    info: mlf.Info,
    vectors: Path,
    board: Board,
    inventory: Inventory,
    mode: str = "performance",
    warmup: int | None = None,
    iterations: int | None = None,
    dataset: Path | None = None,
    quality_target: float | None = None,
    lock_timeout_s: float = 3600.0,
    on_wait: Notify = lambda message: None,
    progress: Progress = lambda done, total: None,
) -> Measurement:
    """Run a firmware in one of MLPerf Tiny's modes.

    Args:
        elf, size: what ``firmware.build`` wrote.
        info: of the compiled model.
        vectors: npz with the raw bytes of inputs and of the oracle's outputs, uint8 [n, bytes].
        mode: ``setup`` (one input, mean latency), ``performance`` (five inputs, median),
            ``accuracy`` (the whole data set; top-1, or AUC for ad01) or ``profile`` (one input;
            every operator by itself, which takes a firmware built for it).
        warmup, iterations: an input; defaults are MLPerf's on hardware, 0 and 1 under emulation.
        dataset: for accuracy, a directory or a zip file with y_labels.csv.
        quality_target: fraction the accuracy must reach to be valid.
        lock_timeout_s: how long to wait for a board that others use.
        on_wait: told once who holds the boards when all are in use.
        progress: told how many of how many inputs are done.

    A firmware that does not fit its board gives a record that says so, without a run. Raises
    ConfigError for arguments that make no sense and BoardError for trouble with the board, which is
    worth a retry and never recorded.
    """
    if mode not in MODES:
        hint = NO_ENERGY if mode == "energy" else f"valid modes: {', '.join(MODES)}"
        raise ConfigError(f"mode '{mode}' cannot be measured", hint)
    if mode == "accuracy" and dataset is None:
        raise ConfigError(
            "mode 'accuracy' needs a data set",
            "name one with the model's key dataset in models.yaml",
        )
    sizes = Size.read(size)
    clock = time.monotonic()
    versions = {"mcuforge": info.compiler_version, "tvm": info.tvm_version}
    facts: dict[str, Any] = {
        "model": sizes.model,
        "board": board.name,
        "platform": board.platform,
        "core": board.core,
        "toolchain": sizes.toolchain,
        "toolchain_version": sizes.toolchain_version,
        "opt_level": sizes.opt_level,
        "executor": info.executor,
        "mode": mode,
        "timebase": "instructions" if board.emulated else "hardware",
        "clock_hz": board.clock_hz,
        "macs": info.macs_nominal,
        "macs_executed": info.macs_executed,
        "flash_bytes": sizes.flash_bytes,
        "code_bytes": sizes.code_bytes,
        "weights_bytes": sizes.weights_bytes,
        "ram_bytes": sizes.ram_bytes,
        "workspace_bytes": sizes.workspace_bytes,
        "missing": sizes.missing,
        "build_id": sizes.build_id,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "quality_target": quality_target,
    }
    if not sizes.fits:
        return Measurement(status="does_not_fit", versions=versions, duration_s=0.0, **facts)

    stimuli = _stimuli(vectors, info)
    data = DataSet(dataset) if dataset else None
    instances = inventory.instances(board.name)
    if not instances:
        raise ConfigError(
            f"no {board.name} is connected", "list it in the hardware map, with connected: true"
        )
    if board.emulated:
        versions["qemu"] = qemu.version()
    with (
        locks.acquire(instances, lock_timeout_s, on_wait) as instance,
        Device(
            board, instance, elf, sizes.build_id, qemu.FINE_SHIFT * (mode == "profile")
        ) as device,
    ):
        run = _Run(board, device, info, warmup, iterations, progress)
        if mode == "accuracy":
            assert data is not None
            results = run.accuracy(data, quality_target)
        else:
            results = run.timed(stimuli, PERFORMANCE_INPUTS if mode == "performance" else 1, mode)
    return Measurement(
        board_instance=instance.id,
        versions=versions,
        duration_s=round(time.monotonic() - clock, 3),
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


class _Run:
    """The modes, on a board that is ready."""

    def __init__(
        self,
        board: Board,
        device: Device,
        info: mlf.Info,
        warmup: int | None,
        iterations: int | None,
        progress: Progress,
    ) -> None:
        self._emulated = board.emulated
        self._device = device
        self._client = device.client
        self._info = info
        self._progress = progress
        default = _EMULATED_WARMUP if board.emulated else _HARDWARE_WARMUP
        self._warmup = default if warmup is None else warmup
        self._iterations = iterations
        self._us_per_tick = 1e6 / device.profile.tick_hz / (1 << device.shift)
        self._clock_mhz = (qemu.INSTRUCTIONS_PER_SECOND if board.emulated else board.clock_hz) / 1e6
        expected = info.input_bytes, info.output_bytes
        if expected != (device.profile.input_bytes, device.profile.output_bytes):
            raise BoardError(
                f"{board.name} expects {device.profile.input_bytes} bytes of input and gives "
                f"{device.profile.output_bytes} of output, the model {expected}"
            )

    def timed(self, stimuli: _Stimuli, count: int, mode: str) -> dict[str, Any]:
        """Time `count` stimuli; the fields of the record that come from running."""
        inputs, expected = stimuli.inputs[:count], stimuli.outputs[:count]
        if len(inputs) < count:
            raise ConfigError(f"mode '{mode}' needs {count} vectors, there are {len(inputs)}")
        runs: list[Inference] = []
        for data in inputs:
            self._client.load(data)
            iterations = self._iterations or self._choose_iterations()
            runs.append(self._client.infer(iterations, self._warmup, _INFER_TIMEOUT_S))
            self._progress(len(runs), count)
        outputs = [self._output(run) for run in runs]
        exact = outputs == expected
        compared = compare(outputs, expected, self._info.outputs)
        average = statistics.median if mode == "performance" else statistics.fmean
        ticks = [run.ticks / run.count for run in runs]
        operators = []
        if mode == "profile":
            operators = self._operators(runs[0])
            ticks = [sum(operators)]
        return {
            "status": "mismatch" if compared.wrong else "ok",
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
            "exact": exact,
            "max_abs_error": compared.max_abs_error,
            "stack_bytes": max(run.stack_bytes for run in runs),
        }

    def accuracy(self, data: DataSet, quality_target: float | None) -> dict[str, Any]:
        """Classify, or score, a whole data set."""
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
            "valid": None if quality_target is None else accuracy >= quality_target,
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
        return {
            "instructions": round(latency_us * per_us) if self._emulated else None,
            "latency_us": latency_us,
            "inferences_per_second": 1e6 / latency_us,
        }


__all__ = ["MODES", "Board", "Instance", "Measurement", "measure"]
