"""Data sets: from a directory, a zip file or an address, complete and checked, or refused."""

import io
import subprocess
import zipfile
from pathlib import Path

import pytest
import yaml

from mcuforge.errors import ConfigError, ModelError
from mcuforge.models import datasets, fetch, registry
from mcuforge.models.datasets import DataSet
from mcuforge.models.registry import DataSetEntry, Source

FILES = {"y_labels.csv": b"b.bin,2,1\na.bin,2,0\nb.bin,2,1\n", "a.bin": b"1", "b.bin": b"2"}
URL = "https://sets.example/all.zip"
SHARED = Path(__file__).parents[3] / "shared" / "data" / "datasets"


@pytest.fixture(autouse=True)
def nothing_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(datasets.DIRECTORIES, raising=False)


def directory(path: Path, **changes: bytes) -> Path:
    path.mkdir(parents=True)
    for name, content in (
        FILES | {k.replace("_bin", ".bin"): v for k, v in changes.items()}
    ).items():
        (path / name).write_bytes(content)
    return path


def archive(below: str = "repo-1234/sets/tiny/") -> bytes:
    with zipfile.ZipFile(content := io.BytesIO(), "w") as out:
        out.writestr("repo-1234/sets/other/y_labels.csv", "x")
        for name, data in FILES.items():
            out.writestr(below + name, data)
    return content.getvalue()


def entry(*sources: Source, sha256: str = "") -> DataSetEntry:
    return DataSetEntry("tiny", "A tiny data set", sha256, sources)


def get(wanted: DataSetEntry, root: Path) -> DataSet:
    output = root / "out" / "tiny.zip"
    datasets.fetch_data_set(wanted, output, root=root, cache=root / "cache")
    assert [p.name for p in output.parent.iterdir()] == ["tiny.zip"]
    return DataSet(output)


def contents(data: DataSet) -> dict[str, bytes]:
    return {name: data.read(name) for name in FILES}


def test_the_sha256_is_what_the_manual_says(tmp_path: Path) -> None:
    here = directory(tmp_path / "tiny")
    command = "sha256sum y_labels.csv b.bin a.bin | sha256sum"
    said = subprocess.run(command, shell=True, cwd=here, capture_output=True, text=True).stdout
    assert DataSet(here).sha256() == said.split()[0]


def test_a_directory_becomes_one_file_with_the_same_content(tmp_path: Path) -> None:
    here = directory(tmp_path / "mine" / "tiny")
    (here / "notes.txt").write_text("not part of it")
    wanted = entry(Source("path", "mine/tiny"), sha256=DataSet(here).sha256())
    data = get(wanted, tmp_path)
    assert contents(data) == FILES
    assert data.sha256() == wanted.sha256
    assert [(row.file, row.label) for row in data.rows] == [
        ("b.bin", 1),
        ("a.bin", 0),
        ("b.bin", 1),
    ]
    before = (tmp_path / "out" / "tiny.zip").read_bytes()
    get(wanted, tmp_path)
    assert (tmp_path / "out" / "tiny.zip").read_bytes() == before
    with zipfile.ZipFile(tmp_path / "out" / "tiny.zip") as made:
        assert sorted(made.namelist()) == sorted(FILES)


def test_the_environment_comes_first_as_a_directory_or_a_zip_file(tmp_path, monkeypatch) -> None:
    directory(tmp_path / "registered")
    mine = directory(tmp_path / "mine" / "tiny", a_bin=b"mine")
    wanted = entry(Source("path", "registered"))
    monkeypatch.setenv(datasets.DIRECTORIES, "mine")
    assert datasets.local(wanted, tmp_path) == mine
    assert get(wanted, tmp_path).read("a.bin") == b"mine"
    (tmp_path / "mine" / "tiny.zip").write_bytes(archive(""))
    assert get(wanted, tmp_path).read("a.bin") == b"1"


def test_content_with_another_sha256_is_passed_over(tmp_path, monkeypatch) -> None:
    right = DataSet(directory(tmp_path / "registered")).sha256()
    wrong = DataSet(directory(tmp_path / "mine" / "tiny", a_bin=b"mine")).sha256()
    monkeypatch.setenv(datasets.DIRECTORIES, str(tmp_path / "mine"))
    assert contents(get(entry(Source("path", "registered"), sha256=right), tmp_path)) == FILES
    with pytest.raises(
        ModelError, match=f"mine/tiny: wrong sha256, expected {right}, found {wrong}"
    ):
        get(entry(sha256=right), tmp_path)


def test_a_download_is_cached_and_its_directory_found(tmp_path: Path, monkeypatch) -> None:
    asked = []

    def download(url: str, path: Path, progress: object) -> None:
        asked.append(url)
        path.write_bytes(archive())

    monkeypatch.setattr(fetch, "download", download)
    sha256 = DataSet(directory(tmp_path / "same")).sha256()
    wanted = entry(Source("url", URL, directory="sets/tiny"), sha256=sha256)
    assert datasets.local(wanted, tmp_path, tmp_path / "cache") is None
    assert contents(get(wanted, tmp_path)) == FILES
    assert contents(get(wanted, tmp_path)) == FILES
    assert asked == [URL]
    assert datasets.local(wanted, tmp_path, tmp_path / "cache") is not None


def test_a_wrong_download_is_not_kept(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(fetch, "download", lambda url, path, progress: path.write_bytes(archive()))
    wanted = entry(Source("url", URL, directory="sets/tiny"), sha256="0" * 64)
    with pytest.raises(ModelError, match=f"wrong sha256, expected {'0' * 64}"):
        get(wanted, tmp_path)
    assert not list((tmp_path / "cache").rglob("*.zip"))


def test_what_nobody_has_says_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"nobody distributes it .*MCUFORGE_DATASETS .*tiny/y_labels"
    ):
        get(entry(), tmp_path)
    assert datasets.local(entry(), tmp_path) is None


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (b"", "lists no files"),
        (b"a.bin,12\n", "line 1: the third column is no class number"),
        (b"a.bin,12,seven\n", "line 1"),
        (b"a.bin,12,-1\n", "line 1"),
        (b"a.bin,12,7,x,y\n", "line 1: window and stride"),
        (b"c.bin,12,7\n", "cannot read c.bin of the data set .*No such file"),
        (b"../y,12,7\n", "is no name of a file beside it"),
        (b"/etc/passwd,12,7\n", "is no name of a file beside it"),
        (b"\xff\xfe,1,1", "is no CSV"),
    ],
)
def test_a_malformed_data_set_is_named(tmp_path: Path, labels: bytes, message: str) -> None:
    here = directory(tmp_path / "tiny")
    (here / "y_labels.csv").write_bytes(labels)
    with pytest.raises(ModelError, match=message) as error:
        DataSet(here).sha256()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"no zip file", archive()[:-30], archive()[100:]])
def test_a_damaged_zip_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tiny.zip").write_bytes(content)
    with pytest.raises(ModelError, match=r"tiny\.zip"):
        DataSet(tmp_path / "tiny.zip", "sets/tiny").sha256()


def test_an_absent_one_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        DataSet(tmp_path / "absent")
    with pytest.raises(ModelError, match=r"cannot read y_labels\.csv"):
        DataSet(tmp_path)


@pytest.mark.parametrize(
    ("data_sets", "message"),
    [
        ({"sources": [{"path": "x"}]}, "'title' is a required property"),
        ({"title": "x", "sources": [{"url": URL}]}, "'sha256' is a required property"),
        ({"title": "x", "sha256": "0" * 64, "sources": [{"url": "http://x/y.zip"}]}, "https"),
        (
            {
                "title": "x",
                "sha256": "0" * 64,
                "sources": [{"url": "https://github.com/a/b/archive/main.zip"}],
            },
            "full commit",
        ),
        ({"title": "x", "sources": [{"pypi": "x==1"}]}, "'pypi' was unexpected"),
    ],
)
def test_a_wrong_entry_is_refused(tmp_path: Path, data_sets: dict, message: str) -> None:
    path = tmp_path / "models.yaml"
    document = {"models": {"m": MODEL}, "datasets": {"tiny": data_sets}}
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigError, match=message):
        registry.load(path)


MODEL = {"title": "M", "task": "t", "sha256": "0" * 64, "sources": [{"path": "x"}]}


def test_a_model_names_a_registered_data_set(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    document = {"models": {"m": MODEL | {"dataset": "tiny"}}, "datasets": {"tiny": {"title": "T"}}}
    path.write_text(yaml.safe_dump(document))
    assert registry.load(path)["m"].dataset == DataSetEntry("tiny", "T")
    path.write_text(yaml.safe_dump({"models": {"m": MODEL | {"dataset": "other"}}}))
    with pytest.raises(ConfigError, match=r"models\.m\.dataset: unknown data set 'other'"):
        registry.load(path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data/datasets")
@pytest.mark.parametrize("name", ["kws01", "ic01"])
def test_the_registered_checksums_are_those_of_the_files(name: str) -> None:
    models = registry.load(Path(__file__).parents[2] / "config" / "models.yaml")
    known = {m.dataset.name: m.dataset for m in models.values() if m.dataset}
    assert known[name].sha256 == DataSet(SHARED / name).sha256()
