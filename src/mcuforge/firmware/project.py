"""Generates the project of one firmware: device sources, the model, and what ties them."""

import hashlib
import math
import re
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from mcuforge import formats, mlf
from mcuforge.boards import Board
from mcuforge.errors import ConfigError, ModelError, known
from mcuforge.firmware.size import Usage
from mcuforge.models import vectors
from mcuforge.target import Target
from mcuforge.toolchains import Tools

DEVICE = Path(__file__).parents[1] / "device"
TEMPLATES = Path(__file__).parent / "templates"
# What a firmware is for. Each is a directory of device/: the firmware speaks MLPerf Tiny's serial
# protocol, or runs samples that are compiled in.
KINDS = ("mlperftiny", "standalone")
BENCHMARKS = ("kws01", "vww01", "ic01", "ad01", "sww01")
# MLPerf Tiny's data sets hold images as uint8 pixels, and ad01's features as float32.
_IMAGE_BENCHMARKS = ("vww01", "ic01")
_CTYPES = {
    "int8": "int8_t",
    "uint8": "uint8_t",
    "int16": "int16_t",
    "int32": "int32_t",
    "float32": "float",
}
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLAIN_TEXT = re.compile(r"[A-Za-z0-9 ._+-]{1,40}")
# The length of memories for linking a firmware that does not fit. So it is known what is missing.
_ENLARGED = 0x10000000
_SAMPLES = 3


@dataclass(frozen=True)
class Samples:
    """Inputs a standalone firmware carries: raw bytes of all input tensors, one after another.

    Attributes:
        outputs: the bytes the outputs must have, in the same order; empty if they are not known.
    """

    inputs: tuple[bytes, ...]
    outputs: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Purpose:
    """What a firmware is for.

    Attributes:
        kind: one of `KINDS`: the benchmark's firmware, or one that runs samples by itself.
        samples: for the latter; by default a few of seeded random numbers.
        benchmark: the MLPerf Tiny model the firmware says it runs, as ``kws01``, which also says
            how a data set's bytes become inputs; empty for none.
        profile: it times each operator of the model; for the kind ``mlperftiny``.
    """

    kind: str = "mlperftiny"
    samples: Samples | None = None
    benchmark: str = ""
    profile: bool = False


@dataclass(frozen=True)
class Order:
    """A firmware to be built: of an MLF archive, for a board, with a toolchain.

    Attributes:
        log: what the tools print is appended to it.
    """

    archive: Path
    board: Board
    toolchain: str
    purpose: Purpose = Purpose()
    log: Path | None = None


@dataclass(frozen=True)
class Project:
    """A generated project: where it is, and the hash of all that went into it."""

    directory: Path
    build_id: str
    info: mlf.Info
    model: str


@dataclass(frozen=True)
class Built:
    """A built project: its firmware and what that takes of the board's memories."""

    project: Project
    elf: Path
    usage: Usage
    toolchain_version: str


def sources() -> list[Path]:
    """Every file besides the MLF that firmware is made from."""
    return sorted(p for root in (DEVICE, TEMPLATES) for p in root.rglob("*") if p.is_file())


def generate(
    archive_path: Path, board: Board, tools: Tools, directory: Path, purpose: Purpose
) -> Project:
    """Write the bare-metal project of an MLF archive into the empty `directory`.

    Raises ConfigError for a name that cannot stand in C source, ModelError for a bad archive.
    """
    archive, values = model_values(archive_path, purpose, board.vendor)
    archive.extract(directory / "model")
    for part in ("runtime", purpose.kind):
        shutil.copytree(DEVICE / part, directory / "device" / part)
    port = DEVICE / "baremetal" / str(board.baremetal["port"])
    shutil.copytree(port, directory / "device" / "baremetal")
    values |= {
        "board": board,
        "toolchain": tools.version,
        "baud": board.baud,
        "emulator": Target(board.core).emulator,
        "lengths": {memory.name: memory.size for memory in board.memories},
        # Programs are named without a path: the project builds wherever they are on PATH.
        "compiler": Path(tools.compiler).name,
        "archiver": Path(tools.archiver).name,
        "ranlib": Path(tools.ranlib).name,
        "flags": tools.flags,
        "link_flags": tools.link_flags,
        "libraries": tools.libraries,
        "model_sources": model_sources(directory),
        "harness_sources": [
            *_relative(directory, "device/runtime", "*.c"),
            *_relative(directory, f"device/{purpose.kind}", "*.c"),
            *_relative(directory, "device/baremetal", "*.c"),
            *(f"generated/{name}" for name in glue(purpose.kind) if name.endswith(".c")),
        ],
    }
    rendered = {
        "CMakeLists.txt": "CMakeLists.txt.j2",
        "README.md": "README.md.j2",
        "LICENSE.md": "LICENSE.md.j2",
        "toolchain.cmake": "toolchain.cmake.j2",
        "generated/memory.ld": "memory.ld.j2",
        "generated/board.h": "board.h.j2",
        **{f"generated/{name}": template for name, template in glue(purpose.kind).items()},
    }
    copied = [p for p in (directory / "device").rglob("*") if p.is_file()]
    build_id = write(directory, rendered, values, archive_path, copied, tools.version)
    return Project(directory, build_id, values["info"], archive.name)


def model_values(
    archive_path: Path, purpose: Purpose, vendor: str
) -> tuple[mlf.Archive, dict[str, Any]]:
    """Read and check what projects of every platform are made from.

    Returns the archive and the values its templates need.
    """
    known("kind of project", purpose.kind, KINDS)
    benchmark = purpose.benchmark
    archive = mlf.read(archive_path)
    info, model = archive.info, archive.name
    for text in (info.entry, model, *(t.c_name for t in info.inputs + info.outputs)):
        if not _IDENTIFIER.fullmatch(text):
            raise ModelError(f"{archive_path}: '{text}' is not a C identifier")
    for text in (vendor, benchmark or model):
        if not _PLAIN_TEXT.fullmatch(text):
            raise ConfigError(
                f"'{text}' cannot be reported by firmware", "letters, digits and ' ._+-', up to 40"
            )

    inputs, outputs = _tensors(info.inputs, "input"), _tensors(info.outputs, "output")
    values = {
        "model": model,
        "info": info,
        "kind": purpose.kind,
        "profile": purpose.profile,
        "inputs": inputs,
        "outputs": outputs,
        "benchmark": benchmark or model,
        "vendor": vendor,
        "dataset": _dataset(benchmark, info.inputs),
    }
    if purpose.kind == "standalone":
        values["samples"] = _checked(purpose.samples or random_samples(info), info)
    return archive, values


def glue(kind: str) -> dict[str, str]:
    """Templates, by name of the file they become, of what ties model and harness."""
    files = {"model_glue.h": "model_glue.h.j2", "model_glue.c": "model_glue.c.j2"}
    return files | ({"samples.c": "samples.c.j2"} if kind == "standalone" else {})


def model_sources(directory: Path) -> list[str]:
    """What of the extracted model is compiled and linked, relative to the project."""
    return _relative(directory, "model/codegen/host/src", "*.c") + _relative(
        directory, "model/codegen/host/lib", "*.o"
    )


def write(
    directory: Path,
    rendered: dict[str, str],
    values: dict[str, Any],
    archive_path: Path,
    copied: list[Path],
    *tools: str,
) -> str:
    """Write the files made from templates; returns the build id.

    The build id stands for everything the firmware is made from. It is part of one file, whose
    share of the hash is therefore that file without it.

    Args:
        rendered: template by name of the file it becomes.
        copied: files that are in the project already and count too.
        tools: versions of what builds the project.
    """
    digest = hashlib.sha256(archive_path.read_bytes())
    for path in sorted(copied):
        digest.update(path.relative_to(directory).as_posix().encode() + b"\0" + path.read_bytes())
    for name, text in sorted(_render(rendered, {**values, "build_id": ""}).items()):
        digest.update(name.encode() + b"\0" + text.encode())
    for version in tools:
        digest.update(version.encode())
    build_id = digest.hexdigest()[:16]
    for name, text in _render(rendered, {**values, "build_id": build_id}).items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    return build_id


def random_samples(info: mlf.Info) -> Samples:
    """Seeded random inputs: all values of integer types, standard normal floats."""
    generator = np.random.default_rng(0)

    def tensor(port: mlf.Port) -> bytes:
        dtype = np.dtype(port.dtype)
        count = port.bytes // dtype.itemsize
        if dtype.kind == "f":
            return generator.standard_normal(count).astype(dtype).tobytes()
        limits = np.iinfo(dtype)
        return generator.integers(limits.min, limits.max, count, dtype, endpoint=True).tobytes()

    return Samples(tuple(b"".join(map(tensor, info.inputs)) for _ in range(_SAMPLES)))


def read_samples(path: Path) -> Samples:
    """Random inputs and the oracle's outputs: from a ``.vectors.npz`` file or, new, of a model.

    Args:
        path: the former, or the model's file that was compiled.
    """
    if path.suffix != ".npz":
        description = formats.of(path).describe(formats.read(path), path.stem)
        with tempfile.TemporaryDirectory(prefix="mcuforge-") as directory:
            written = Path(directory) / "vectors.npz"
            vectors.write(description, path, written)
            return read_samples(written)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            inputs, outputs = arrays["inputs"][:_SAMPLES], arrays["outputs"][:_SAMPLES]
    # A single array is no context manager, which is a TypeError.
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ConfigError(f"cannot read samples from {path}: {error}") from error
    return Samples(tuple(row.tobytes() for row in inputs), tuple(row.tobytes() for row in outputs))


def _checked(samples: Samples, info: mlf.Info) -> Samples:
    for kind, rows, expected in (
        ("inputs", samples.inputs, info.input_bytes),
        ("outputs", samples.outputs, info.output_bytes),
    ):
        wrong = next((len(row) for row in rows if len(row) != expected), None)
        if wrong is not None:
            raise ConfigError(
                f"samples have {wrong} bytes of {kind}, the model {expected}",
                "use the vectors of this model",
            )
    return samples


def enlarge(project: Project, board: Board) -> None:
    """Rewrite the memory map as if every memory were large enough."""
    lengths = dict.fromkeys((memory.name for memory in board.memories), _ENLARGED)
    text = environment().get_template("memory.ld.j2").render(board=board, lengths=lengths)
    (project.directory / "generated" / "memory.ld").write_text(text)


def environment() -> jinja2.Environment:
    """The templates, which must be given every value they use."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )


def _render(templates: dict[str, str], values: dict[str, Any]) -> dict[str, str]:
    templates_of = environment()
    return {name: templates_of.get_template(t).render(values) for name, t in templates.items()}


def _relative(directory: Path, under: str, pattern: str) -> list[str]:
    return sorted(p.relative_to(directory).as_posix() for p in (directory / under).rglob(pattern))


def _tensors(tensors: tuple[mlf.Port, ...], prefix: str) -> list[dict[str, Any]]:
    """The tensors with what the glue's template needs: C type, variable, exact scale."""
    described = []
    for index, tensor in enumerate(tensors):
        dtype = tensor.dtype
        if dtype not in _CTYPES:
            raise ModelError(
                f"{prefix} '{tensor.name}' has the type {dtype}",
                f"firmware supports {', '.join(_CTYPES)}",
            )
        scale = float(np.float32(tensor.scale or 1.0))
        if not math.isfinite(scale):
            raise ModelError(f"{prefix} '{tensor.name}' has the scale {scale}")
        described.append(
            {
                "c_name": tensor.c_name,
                "variable": f"{prefix}_{index}",
                "dtype": dtype,
                "ctype": _CTYPES[dtype],
                "bytes": tensor.bytes,
                "elements": tensor.bytes // np.dtype(dtype).itemsize,
                "scale": f"{scale.hex()}f",
                "zero_point": tensor.zero_point or 0,
            }
        )
    return described


def _dataset(benchmark: str, inputs: tuple[mlf.Port, ...]) -> str:
    if benchmark in _IMAGE_BENCHMARKS and [t.dtype for t in inputs] == ["int8"]:
        return "IMAGE"
    if benchmark == "ad01" and [t.dtype for t in inputs] in (["int8"], ["float32"]):
        return "FEATURES"
    return "RAW"
