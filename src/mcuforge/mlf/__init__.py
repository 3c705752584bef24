"""Model Library Format: a compiled model as one archive, as TVM lays it out (version 7).

Source of the layout: TVM's "Model Library Format" document. It differs in two points: Relax
replaces Relay (``src/relax.txt``), and each module carries a key ``mcuforge`` with what the rest of
the pipeline needs.
"""

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mcuforge import files
from mcuforge.errors import ModelError

FORMAT_VERSION = 7
# Archives carry no time: the same inputs give the same bytes.
EPOCH = "1980-01-01 00:00:00Z"
_MAX_BYTES = 256 << 20
_MAX_MEMBERS = 1000


@dataclass(frozen=True)
class Archive:
    """A Model Library Format archive in memory.

    Attributes:
        metadata: parsed ``metadata.json``.
        members: content by path inside the archive.
    """

    metadata: dict[str, Any]
    members: dict[str, bytes]

    @property
    def name(self) -> str:
        """The model's name."""
        (name,) = self.metadata["modules"]
        return name

    @property
    def info(self) -> dict[str, Any]:
        """What mcuforge recorded about the compilation."""
        return self.metadata["modules"][self.name]["mcuforge"]

    def extract(self, directory: Path) -> list[Path]:
        """Write all members below ``directory``; returns their paths, sorted."""
        paths = []
        for name in sorted(self.members):
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.members[name])
            paths.append(path)
        return paths


def write(path: Path, metadata: dict[str, Any], members: dict[str, bytes]) -> None:
    """Write an archive atomically, with reproducible bytes.

    Args:
        path: the ``.tar`` to write.
        metadata: becomes ``metadata.json``.
        members: content by path inside the archive.
    """
    document = json.dumps(metadata, indent=2, sort_keys=True) + "\n"
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
        ModelError: not a tar, too large, links or paths that lead outside, or metadata that is no
            Model Library Format of this version.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            members = dict(_members(path, tar))
    except (tarfile.TarError, EOFError) as error:
        raise ModelError(f"{path} is not a Model Library Format archive: {error}") from error
    try:
        metadata = json.loads(members.pop("metadata.json"))
        version, modules = metadata["version"], metadata["modules"]
        (module,) = modules.values()
        supported = version == FORMAT_VERSION and "mcuforge" in module
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} has no valid metadata.json: {error}") from error
    if not supported:
        raise ModelError(
            f"{path} has Model Library Format version {version}, or is not mcuforge's",
            f"compile the model again with this mcuforge (version {FORMAT_VERSION})",
        )
    return Archive(metadata, members)


def _members(path: Path, tar: tarfile.TarFile):
    total = 0
    for count, member in enumerate(tar):
        name = PurePosixPath(member.name)
        if member.isdir():
            continue
        if not member.isfile() or name.is_absolute() or ".." in name.parts or "\\" in member.name:
            raise ModelError(f"{path} holds '{member.name}', which is no plain relative file")
        total += member.size
        if total > _MAX_BYTES or count >= _MAX_MEMBERS:
            raise ModelError(f"{path} is larger than a compiled model can be")
        yield str(name), tar.extractfile(member).read()
