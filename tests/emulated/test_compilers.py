"""Generated C is right with every compiler and optimization level, on every core and the host.

Compilers see a whole model in one file, with the addresses of its tensors: they must not draw
conclusions across the borders of kernels.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from helpers import chains
from helpers.calls import calls
from helpers.emulator import EmulatedModel
from helpers.host import HostModel
from helpers.tflite_graphs import answer
from mcuforge import mlf
from mcuforge.compiler import compile_model
from mcuforge.target import Target

CASES = Path(__file__).parents[3] / "shared" / "data" / "cases"
RUNS = 3
# Whose instructions the code may use, and what it runs on: portable C, DSP extension and Helium.
CORES = [("host", "cortex-m4"), ("cortex-m7", "cortex-m7"), ("cortex-m55", "cortex-m55")]

Chained = Callable[[str], list[Path]]
Stimulus = tuple[np.ndarray, list[bytes]]


@pytest.fixture(scope="session")
def chained(tmp_path_factory: pytest.TempPathFactory) -> Chained:
    """Archives of all chains, compiled for a core at level 3."""
    done: dict[str, list[Path]] = {}

    def compile_all(core: str) -> list[Path]:
        if core not in done:
            directory = tmp_path_factory.mktemp(core)
            done[core] = []
            for kind in chains.KINDS:
                model, archive = directory / f"{kind}.tflite", directory / f"{kind}.tar"
                model.write_bytes(chains.model(kind))
                compile_model(model, kind, Target(core), 3, archive)
                done[core].append(archive)
        return done[core]

    return compile_all


@pytest.fixture(scope="session")
def stimulus() -> Stimulus:
    """Inputs of all chains in a row of bytes for each run, and by chain LiteRT's answers."""
    given = [chains.inputs(kind, RUNS) for kind in chains.KINDS]
    rows = [np.concatenate([_row(runs[i]) for runs in given]) for i in range(RUNS)]
    answers = [
        _bytes(answer(chains.model(kind), inputs) for inputs in runs)
        for kind, runs in zip(chains.KINDS, given, strict=True)
    ]
    return np.stack(rows), answers


@pytest.mark.parametrize(
    ("target", "core", "toolchain", "flags"),
    [
        *((*cores, "gcc", flags) for cores in CORES for flags in ("-O1", "-O2", "-O3", "-Os")),
        ("cortex-m7", "cortex-m7", "gcc", "-O0"),
        ("cortex-m7", "cortex-m7", "gcc", "-O2 -flto"),
        ("cortex-m7", "cortex-m7", "clang", "-O3"),
        ("cortex-m55", "cortex-m55", "clang", "-Os"),
    ],
)
def test_compilers_for_arm(
    target: str,
    core: str,
    toolchain: str,
    flags: str,
    chained: Chained,
    stimulus: Stimulus,
    tmp_path: Path,
) -> None:
    first, *further = chained(target)
    built = EmulatedModel(first, tmp_path, toolchain, tuple(flags.split()), core, further)
    assert_answers(built, stimulus)
    assert_kernels_are_called([first, *further], built.program, "arm-none-eabi-objdump")


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [
        *(("gcc", flags) for flags in ("-O0", "-O2", "-O3", "-O2 -flto")),
        *(("clang-19", flags) for flags in ("-O2", "-O3")),
    ],
)
@pytest.mark.parametrize("target", ["host", "cortex-m55"])
def test_compilers_for_the_host(
    target: str, compiler: str, flags: str, chained: Chained, stimulus: Stimulus, tmp_path: Path
) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    first, *further = chained(target)
    built = HostModel(first, tmp_path, tuple(flags.split()), compiler, further)
    assert_answers(built, stimulus)
    assert_kernels_are_called([first, *further], built.program, "objdump")


@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m7", "cortex-m55"])
@pytest.mark.parametrize("case", ["gcc12-drops-kernel-calls", "micro_kws_m_quantized"])
def test_models_that_lost_calls(case: str, core: str, tmp_path: Path) -> None:
    source = CASES / f"{case}.tflite"
    if not source.is_file():
        pytest.skip(f"{source} is not there")
    archives = []
    for level in (1, 2, 3, 4):
        archives.append(tmp_path / f"{level}.tar")
        compile_model(source, f"level{level}", Target(core), level, archives[-1])
    info = mlf.read(archives[0]).info
    random = np.random.default_rng(4)
    rows = random.integers(0, 256, (RUNS, info.input_bytes), np.uint8)
    shapes = [port.shape for port in info.inputs]
    assert len(shapes) == 1
    content = source.read_bytes()
    expected = [_row(answer(content, [row.view(np.int8).reshape(shapes[0])])) for row in rows]
    for number, flags in enumerate(("-O2", "-O3")):
        for build, objdump in ((_on_core, "arm-none-eabi-objdump"), (_on_host, "objdump")):
            directory = tmp_path / f"{build.__name__}{number}"
            built = build(archives, directory, flags)
            np.testing.assert_array_equal(
                built.run(np.tile(rows, 4)), np.tile(np.stack(expected), 4)
            )
            assert_kernels_are_called(archives, built.program, objdump)


def _on_core(archives: list[Path], directory: Path, flags: str) -> EmulatedModel:
    return EmulatedModel(archives[0], directory, "gcc", (flags,), further=archives[1:])


def _on_host(archives: list[Path], directory: Path, flags: str) -> HostModel:
    return HostModel(archives[0], directory, (flags,), further=archives[1:])


def assert_kernels_are_called(archives: Sequence[Path], program: Path, objdump: str) -> None:
    """Every call the executor plans is in the program, in order."""
    # Link time optimization may inline a run function.
    found = [name for called in calls(program, objdump).values() for name in called]
    for path in archives:
        archive = mlf.read(path)
        plan = json.loads(archive.members[f"executor-config/aot/{archive.name}.json"])
        planned = [call["symbol"] for call in plan["calls"] if call["symbol"]]
        assert [name for name in found if name in planned] == planned, archive.name


def assert_answers(built: EmulatedModel | HostModel, stimulus: Stimulus) -> None:
    rows, answers = stimulus
    results = built.run(rows)
    ends = np.cumsum([info.output_bytes for info in built.infos])[:-1]
    given = [part.tobytes() for part in np.split(results, ends, axis=1)]
    wrong = [kind for kind, x, y in zip(chains.KINDS, given, answers, strict=True) if x != y]
    assert wrong == []


def _row(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.frombuffer(b"".join(array.tobytes() for array in arrays), np.uint8)


def _bytes(runs) -> bytes:
    return b"".join(_row(arrays).tobytes() for arrays in runs)
