"""Model Library Format: a compiled model as one archive, as TVM lays it out (version 7).

Source of the layout: TVM's document "Model Library Format" and, for what version 7 adds to it, the
exporter of microTVM (``python/tvm/micro/model_library_format.py``, TVM 0.8 to 0.17). Members:

- ``metadata.json``: models, targets, memory of every function;
- ``codegen/host/src/*.c``, ``include/*.h``, ``lib/*.o``: the code;
- ``parameters/<model>.params``: the constants, in the format of ``tvm.runtime.save_param_dict``;
  the code holds them too, nothing has to load this file;
- ``executor-config/aot/<model>.json``: what the executor does: every tensor with its place in the
  workspace, every call with its arguments. TVM has such a file for its graph executor only;
- ``src/relax.txt``: the module code was generated from. TVM had ``relay.txt``;
- ``LICENSE.md``: the terms of all this.

Each module of ``metadata.json`` carries a key ``mcuforge`` with what the rest of the pipeline
needs; the schema ``mlf`` says what. Reading needs no TVM.
"""

import io
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcuforge import files, schema
from mcuforge.errors import ConfigError, ModelError
from mcuforge.mlf.info import Info, Port

_VERSION = 7
# DLPack's device type of a CPU.
_DL_CPU = 1
# Archives carry no time: the same inputs give the same bytes.
_EPOCH = "1980-01-01 00:00:00Z"
_MAX_BYTES = 256 << 20
_MAX_MEMBERS = 1000
# Members become files, and their names part of build scripts: plain names, nothing hidden.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}(/[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}){0,9}")
_END = bytes(2 * tarfile.BLOCKSIZE)


@dataclass(frozen=True)
class Archive:
    """A Model Library Format archive in memory.

    Attributes:
        metadata: parsed ``metadata.json``.
        members: content by path inside the archive, ``metadata.json`` excepted.
    """

    metadata: dict[str, Any]
    members: dict[str, bytes]

    @property
    def name(self) -> str:
        """The model's name."""
        (name,) = self.metadata["modules"]
        return name

    @property
    def info(self) -> Info:
        """What mcuforge recorded about the compilation."""
        return Info.from_json(self.metadata["modules"][self.name]["mcuforge"])

    def extract(self, directory: Path) -> list[Path]:
        """Write all members below ``directory``; returns their paths, sorted."""
        paths = []
        for name in sorted(self.members):
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.members[name])
            paths.append(path)
        return paths


def metadata(
    name: str, info: Info, target: str, functions: dict[str, dict[str, int]]
) -> dict[str, Any]:
    """The content of ``metadata.json`` for one model.

    Args:
        name: the model's.
        target: what it is compiled for, as TVM writes it.
        functions: for each operator function its ``workspace_size_bytes``,
            ``constants_size_bytes`` and ``io_size_bytes``.
    """
    # Buffers of the caller count. Those in the workspace are counted there already.
    io_bytes = 0 if info.io_in_workspace else info.input_bytes + info.output_bytes
    main = {
        "device": _DL_CPU,
        "workspace_size_bytes": info.workspace_bytes,
        "constants_size_bytes": info.weights_bytes,
        "io_size_bytes": io_bytes,
        "inputs": _sizes(info.inputs),
        "outputs": _sizes(info.outputs),
    }
    module = {
        "model_name": name,
        "export_datetime": _EPOCH,
        "executors": [info.executor],
        "style": "full-model",
        "target": [target],
        "external_dependencies": [],
        "memory": {
            "functions": {
                "main": [main],
                "operator_functions": [
                    {"function_name": function, "workspace": [{"device": _DL_CPU, **sizes}]}
                    for function, sizes in functions.items()
                ],
            }
        },
        "mcuforge": info.to_json(),
    }
    return {"version": _VERSION, "modules": {name: module}}


def _sizes(ports: tuple[Port, ...]) -> dict[str, dict[str, Any]]:
    return {port.c_name: {"dtype": port.dtype, "size": port.bytes} for port in ports}


def write(path: Path, metadata: dict[str, Any], members: dict[str, bytes]) -> None:
    """Write an archive atomically, with reproducible bytes.

    Args:
        path: the ``.tar`` to write.
        metadata: becomes ``metadata.json``.
        members: content by path inside the archive.

    Raises:
        ConfigError: the metadata does not fit the schema ``mlf``.
    """
    document = json.dumps(metadata, indent=2, sort_keys=True) + "\n"
    schema.check(json.loads(document), "mlf", str(path))
    content = {"metadata.json": document.encode(), **members}
    with (
        files.atomic(path) as temporary,
        tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name in sorted(content):
            member = tarfile.TarInfo(name)
            member.size = len(content[name])
            member.mode = 0o644
            tar.addfile(member, io.BytesIO(content[name]))


def read(path: Path) -> Archive:
    """Read an archive, trusting nothing in it.

    Raises:
        ModelError: not there, not a complete tar, too large, anything but plain files with plain
            names, or metadata that is no Model Library Format of this version.
    """
    try:
        members = _members(path)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    # tarfile follows a chain of extended headers by recursion.
    except (tarfile.TarError, EOFError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not a Model Library Format archive: {error}") from error
    try:
        metadata = json.loads(members.pop("metadata.json"))
    except KeyError as error:
        raise ModelError(f"{path} has no metadata.json") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: metadata.json is not JSON: {error}") from error
    version = metadata.get("version") if isinstance(metadata, dict) else None
    if version != _VERSION:
        raise ModelError(
            f"{path} has Model Library Format version {str(version)[:20]}, not {_VERSION}",
            "compile the model again with this mcuforge",
        )
    try:
        schema.check(metadata, "mlf", f"{path}: metadata.json")
    except ConfigError as error:
        raise ModelError(error.message, "only archives written by mcuforge can be used") from error
    return Archive(metadata, members)


def _members(path: Path) -> dict[str, bytes]:
    if path.stat().st_size > _MAX_BYTES:
        raise ModelError(f"{path} is larger than a compiled model can be")
    with path.open("rb") as file:
        members = {name: content for name, content in _plain_files(path, file)}
        # A copy that was cut off between two members reads like a whole archive, but its end is
        # missing.
        file.seek(max(0, path.stat().st_size - len(_END)))
        if file.read() != _END:
            raise ModelError(f"{path} is truncated", "copy or compile it again")
    for name in members:
        parents = name.split("/")[:-1]
        if any("/".join(parents[: depth + 1]) in members for depth in range(len(parents))):
            raise ModelError(f"{path} holds '{name}' below a file")
    return members


def _plain_files(path: Path, file: io.BufferedIOBase) -> Iterator[tuple[str, bytes]]:
    total = 0
    seen = set()
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for count, member in enumerate(tar):
            total += member.size
            if total > _MAX_BYTES or count >= _MAX_MEMBERS:
                raise ModelError(f"{path} is larger than a compiled model can be")
            name = member.name.removeprefix("./")
            if member.isdir() and (name == "." or _NAME.fullmatch(name)):
                continue
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or not _NAME.fullmatch(name):
                raise ModelError(f"{path} holds {name[:100]!r}, which is no plain relative file")
            if name in seen:
                raise ModelError(f"{path} holds '{name}' twice")
            seen.add(name)
            content = tar.extractfile(member)
            assert content, "a regular file has content"
            yield name, content.read()
