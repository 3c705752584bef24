"""Builds the simulator, a plugin of QEMU's, and runs calls of a firmware's functions with it."""

import dataclasses
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile

from mcuforge import toolchains
from mcuforge.boards.inventory import Timing
from mcuforge.cycles import decode
from mcuforge.cycles.cores import Core
from mcuforge.cycles.program import Call, Image
from mcuforge.errors import ModelError, ToolError

_SOURCES = Path(__file__).parent / "plugin"
_EMULATOR = "qemu-arm"
# Any core of this emulator that has the instructions will do: only what they do comes from it, and
# its microcontrollers cannot be used in user mode.
_EMULATED_CPU = "max"
_BUILD = ("-std=c11", "-D_POSIX_C_SOURCE=200809L", "-O2", "-shared", "-fPIC", "-fvisibility=hidden")
_TIMEOUT_S = 1200.0


@dataclass(frozen=True)
class Costs:
    """Executed instructions and where the cycles go.

    Attributes:
        instructions: how many were executed.
        issue: cycles in which something issues, and what instructions keep the pipeline for.
        dependency: waiting for operands.
        fetch: waiting for instructions' bytes where caches have them: after a taken branch.
        data_misses, instruction_misses: waiting for lines of memory.
        branches: refilling the pipeline; on a core without prediction after each taken branch.
        multiples: of `issue`, that of multiple loads and stores.
        floats: of `instructions`, those that compute in floating point.
    """

    instructions: int = 0
    issue: int = 0
    dependency: int = 0
    fetch: int = 0
    data_misses: int = 0
    instruction_misses: int = 0
    branches: int = 0
    multiples: int = 0
    floats: int = 0

    @property
    def cycles(self) -> int:
        """All cycles."""
        return (
            self.issue
            + self.dependency
            + self.fetch
            + self.data_misses
            + self.instruction_misses
            + self.branches
        )


def total(costs: Iterable[Costs]) -> Costs:
    """The sum of costs, each cause by itself."""
    return Costs(*map(sum, zip(*map(dataclasses.astuple, costs), strict=True)))


@dataclass(frozen=True)
class Simulated:
    """What a call did.

    Attributes:
        costs: of each kernel in order, and in front of them what belongs to none.
        output: bytes of the call's outputs, one after the other.
    """

    costs: tuple[Costs, ...]
    output: bytes


def simulate(
    elf: Path, call: Call, core: Core, timing: Timing, kernels: Sequence[int] = ()
) -> Simulated:
    """Execute a function of a firmware and count the cycles of its last call.

    Args:
        elf: the firmware, with its symbols. Its core has the instructions of ARMv7E-M at most.
        kernels: addresses of the functions it calls whose costs are wanted, in the order of the
            calls; 0 for a step without a function.

    Raises ToolError if QEMU or the host's C compiler is missing or fails, and ModelError if the
    function does not end or does not return 0.
    """
    with tempfile.TemporaryDirectory(prefix="mcuforge-") as name, elf.open("rb") as stream:
        directory = Path(name)
        firmware = ELFFile(stream)
        image = Image(firmware)
        end = image.program(call, directory / "program")
        with (directory / "instructions").open("wb") as file:
            file.writelines(i.pack() for i in decode.instructions(firmware))
        words = b"".join(address.to_bytes(4, sys.byteorder) for address in kernels)
        (directory / "kernels").write_bytes(words)
        options = [
            ("file", build(directory)),
            *((part, directory / part) for part in ("instructions", "kernels", "costs")),
            *(("begin", call.entry), ("end", end), ("entry_size", image.size(call.entry))),
            *core.pipeline.items(),
            *_timing(timing),
        ]
        output = _run(options, directory / "program")
        rows = (directory / "costs").read_text().splitlines()
    return Simulated(tuple(Costs(*map(int, row.split())) for row in rows), output)


def build(directory: Path) -> Path:
    """Compile the simulator for this machine; the library's path."""
    library = directory / "simulator.so"
    sources = sorted(map(str, _SOURCES.glob("*.c")))
    command = [toolchains.find("cc"), *_BUILD, *sources, "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolError(f"the simulator does not compile: {' '.join(done.stderr.split())}")
    return library


def _timing(timing: Timing) -> Iterator[tuple[str, str]]:
    """The memory as the plugin's options: ``data_cache=16384/4``, ``memory=0/0x1000/12``."""
    caches = {"data_cache": timing.data_cache, "instruction_cache": timing.instruction_cache}
    for name, cache in caches.items():
        if cache:
            yield name, f"{cache.size}/{cache.ways}"
    for memory in timing.memories:
        yield "memory", f"{memory.origin}/{memory.size}/{memory.line_cycles}"


def _run(options: list[tuple[str, object]], program: Path) -> bytes:
    """What the program prints, run with the plugin."""
    # A comma separates options; two are one.
    plugin = ",".join(f"{name}={str(value).replace(',', ',,')}" for name, value in options)
    command = [toolchains.find(_EMULATOR), "-cpu", _EMULATED_CPU, "-plugin", plugin, str(program)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ModelError(f"the model does not end within {_TIMEOUT_S:.0f} s") from None
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())
        raise ModelError(f"the model fails in the emulator: status {done.returncode} {said}")
    return done.stdout
