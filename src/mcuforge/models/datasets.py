"""Data sets in MLPerf Tiny's format: a `y_labels.csv` beside the files it names.

Each line of `y_labels.csv` is `file,classes,label[,bytes_to_send,stride]`. What the files hold is a
matter of the benchmark, see `mcuforge.runner.dataset`.
"""

import csv
import hashlib
import io
import os
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from mcuforge import files
from mcuforge.errors import ModelError
from mcuforge.models import fetch
from mcuforge.models.registry import DataSetEntry, Source

LABELS = "y_labels.csv"
DIRECTORIES = "MCUFORGE_DATASETS"  # environment variable: a directory with one for each data set
_MAX_FILE = 64 << 20
_COLUMNS = ("file", "classes", "label", "bytes_to_send", "stride")


@dataclass(frozen=True)
class Row:
    """One line of `y_labels.csv`.

    Attributes:
        window, stride: for ad01, bytes of a window and from one to the next; 0 if not given.
    """

    file: str
    label: int
    window: int = 0
    stride: int = 0


class DataSet:
    """The files of a data set.

    Args:
        path: a directory, or a zip file.
        below: the directory in the zip file; the end of its path is enough if it is unique.

    Attributes:
        rows: in the order of `y_labels.csv`.

    Raises ModelError for whatever is missing or malformed, now or when a file is read.
    """

    def __init__(self, path: Path, below: str = "") -> None:
        self._path = path
        self._root: Path | zipfile.Path = path
        if not path.is_dir():
            self._root = _in_archive(path, below)
        self.rows = self._read_rows()

    def read(self, file: str) -> bytes:
        """The content of one of the files, 64 MiB at most."""
        try:
            with (self._root / file).open("rb") as stream:
                content = stream.read(_MAX_FILE + 1)
        except (OSError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ModelError(
                f"cannot read {file} of the data set {self._path}: {reason}"
            ) from error
        if len(content) > _MAX_FILE:
            raise ModelError(f"{file} of the data set {self._path} is too large for an input")
        return content

    def sha256(self) -> str:
        """What `sha256sum y_labels.csv FILES... | sha256sum` says, files in the labels' order."""
        lines = (f"{hashlib.sha256(self.read(name)).hexdigest()}  {name}\n" for name in self._names)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Write it as a zip file, atomically; the same data set gives the same bytes."""
        with files.atomic(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name in self._names:
                archive.writestr(zipfile.ZipInfo(name), self.read(name))

    @property
    def _names(self) -> list[str]:
        return list(dict.fromkeys([LABELS, *(row.file for row in self.rows)]))

    def _read_rows(self) -> tuple[Row, ...]:
        try:
            text = self.read(LABELS).decode()
            lines = list(csv.DictReader(io.StringIO(text), fieldnames=_COLUMNS))
        except (UnicodeDecodeError, csv.Error) as error:
            raise ModelError(f"{LABELS} of {self._path} is no CSV: {error}") from error
        rows = tuple(self._row(number, line) for number, line in enumerate(lines, 1))
        if not rows:
            raise ModelError(f"{LABELS} of {self._path} lists no files")
        return rows

    def _row(self, number: int, line: dict[str, str]) -> Row:
        where = f"{LABELS} of {self._path}, line {number}"
        if not line["file"] or Path(line["file"]).name != line["file"]:
            raise ModelError(f"{where}: '{line['file']}' is no name of a file beside it")
        if not (line["label"] or "").strip().isdecimal():
            raise ModelError(f"{where}: the third column is no class number")
        try:
            window, stride = (int(line[key] or 0) for key in ("bytes_to_send", "stride"))
        except ValueError:
            raise ModelError(f"{where}: window and stride must be numbers of bytes") from None
        return Row(line["file"], int(line["label"]), window, stride)


def _in_archive(path: Path, below: str) -> zipfile.Path:
    """The one directory in a zip file whose path ends with `below` and that has labels."""
    suffix = "/".join(filter(None, ["", below.strip("/"), LABELS]))
    try:
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise ModelError(f"cannot read the data set {path}: {error.strerror}") from error
    except (zipfile.BadZipFile, ValueError) as error:
        raise ModelError(f"the data set {path} is neither a directory nor a zip file") from error
    found = [name for name in archive.namelist() if f"/{name}".endswith(f"/{suffix.lstrip('/')}")]
    if len(found) != 1:
        raise ModelError(f"{path} has {len(found)} files {suffix}, expected one")
    return zipfile.Path(archive, found[0].removesuffix(LABELS))


def local(entry: DataSetEntry, root: Path = Path(), cache: Path | None = None) -> Path | None:
    """Where a data set already is on this machine, unchecked; None if it would have to be fetched.

    Args:
        root: what relative ``path`` sources are relative to.
        cache: directory for downloads; None for the user's.
    """
    places = [_place(source, root, cache) for source in _sources(entry, root)]
    return next((p for p in places if p.is_file() or (p / LABELS).is_file()), None)


def fetch_data_set(
    entry: DataSetEntry,
    output: Path,
    *,
    root: Path = Path(),
    cache: Path | None = None,
    progress: TextIO = sys.stderr,
) -> None:
    """Write a data set as one zip file, from the first source that has the right bytes.

    A directory, or zip file, of its name in the directory that the environment variable
    ``MCUFORGE_DATASETS`` names is looked into first. Without a registered sha256 the first that is
    complete is taken. The other arguments are as for `local`.

    Raises ModelError if no source has it; the message says what each one lacked.
    """
    reasons = []
    for source in _sources(entry, root):
        try:
            _obtain(source, entry.sha256, root, cache, progress).write(output)
            return
        except ModelError as error:
            reasons.append(f"{source}: {error}")
    raise ModelError(
        f"cannot get the data set '{entry.name}': {'; '.join(reasons) or 'nobody distributes it'}",
        f"set {DIRECTORIES} to a directory that has it as {entry.name}/{LABELS}",
    )


def _sources(entry: DataSetEntry, root: Path) -> list[Source]:
    mine = os.environ.get(DIRECTORIES)
    if not mine:
        return list(entry.sources)
    place = root / Path(mine).expanduser() / entry.name
    archive = place.with_name(f"{entry.name}.zip")
    return [Source("path", str(archive if archive.is_file() else place)), *entry.sources]


def _place(source: Source, root: Path, cache: Path | None) -> Path:
    """Where the data set of a source is on this machine, or will be once it is downloaded."""
    if source.kind == "path":
        return root / Path(source.location).expanduser()
    key = hashlib.sha256(source.location.encode()).hexdigest()[:16]
    return (cache or fetch.cache_directory()) / "datasets" / f"{key}.zip"


def _obtain(
    source: Source, sha256: str, root: Path, cache: Path | None, progress: TextIO
) -> DataSet:
    place = _place(source, root, cache)

    def checked() -> DataSet:
        data = DataSet(place, source.directory)
        found = data.sha256()
        if sha256 not in ("", found):
            raise ModelError(f"wrong sha256, expected {sha256}, found {found}")
        return data

    if source.kind == "path":
        return checked()
    return fetch.cached(place, lambda: fetch.download(source.location, place, progress), checked)
