"""Archives: what is written is read back, to the byte, and nothing hostile gets through."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from helpers import fake_mlf, tiny
from mcuforge import mlf
from mcuforge.errors import ConfigError, ModelError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return fake_mlf.write(tmp_path / "tiny.tar")


def _metadata(archive: Path) -> dict:
    return mlf.read(archive).metadata


def _tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    """A tar of any members behind valid metadata."""
    valid = fake_mlf.write(path.with_suffix(".valid"))
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for member, content in (_file("metadata.json", _document(valid)), *members):
            tar.addfile(member, io.BytesIO(content))
    return path


def _file(name: str, content: bytes = b"", **fields) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in fields.items():
        setattr(member, key, value)
    return member, content


def _document(archive: Path) -> bytes:
    with tarfile.open(archive) as tar:
        return tar.extractfile("metadata.json").read()


def test_round_trip(tmp_path: Path) -> None:
    source = mlf.read(fake_mlf.write(tmp_path / "a.tar"))
    members = {**source.members, "codegen/host/lib/a.o": bytes(range(256)), "src/relax.txt": b""}
    mlf.write(tmp_path / "b.tar", source.metadata, members)
    copy = mlf.read(tmp_path / "b.tar")
    assert copy.metadata == source.metadata
    assert copy.members == members
    assert copy.name == "tiny"
    assert copy.info.entry == "tvmgen_tiny_run"


def test_extract_writes_every_member_and_nothing_else(archive: Path, tmp_path: Path) -> None:
    read = mlf.read(archive)
    paths = read.extract(tmp_path / "out")
    found = {p for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert found == set(paths)
    assert {str(p.relative_to(tmp_path / "out")): p.read_bytes() for p in paths} == read.members


def test_bytes_depend_on_content_only(archive: Path, tmp_path: Path) -> None:
    read = mlf.read(archive)
    # The same content in any order, at another time, under another umask.
    before = os.umask(0o077)
    try:
        mlf.write(
            tmp_path / "other.tar",
            dict(reversed(read.metadata.items())),
            dict(reversed(read.members.items())),
        )
    finally:
        os.umask(before)
    assert (tmp_path / "other.tar").read_bytes() == archive.read_bytes()
    with tarfile.open(archive) as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")


def test_a_failed_write_leaves_what_was_there(archive: Path) -> None:
    before = archive.read_bytes()
    metadata = _metadata(archive)
    with pytest.raises(TypeError):
        mlf.write(archive, metadata, {"a": None, "b": b""})
    assert archive.read_bytes() == before
    assert [p.name for p in archive.parent.iterdir()] == [archive.name]


def test_archives_of_other_programs_that_pack_the_directory_are_fine(
    archive: Path, tmp_path: Path
) -> None:
    read = mlf.read(archive)
    read.extract(tmp_path / "tree")
    (tmp_path / "tree/metadata.json").write_bytes(_document(archive))
    with tarfile.open(tmp_path / "packed.tar", "w") as tar:
        tar.add(tmp_path / "tree", arcname=".")
    assert mlf.read(tmp_path / "packed.tar").members == read.members


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../outside.c",
        "codegen/../../outside.c",
        "codegen/host/src/.hidden.c",
        "codegen\\host.c",
        "C:evil.c",
        'x") execute_process(COMMAND sh).c',
        "codegen//double.c",
        "-flag.c",
        "a\nb.c",
        "ü.c",
        "x" * 300 + ".c",
        "/".join("d" * 20),
    ],
)
def test_names_that_are_not_plain_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="no plain relative file"):
        mlf.read(_tar(tmp_path / "evil.tar", _file(name, b"int x;")))


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.CONTTYPE,
        b"Z",
    ],
)
def test_members_that_are_not_files_are_refused(tmp_path: Path, kind: bytes) -> None:
    member = _file("codegen/host/src/a.c", type=kind, linkname="/etc/passwd")
    with pytest.raises(ModelError):
        mlf.read(_tar(tmp_path / "evil.tar", member))


def test_a_sparse_member_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        mlf.read(_tar(tmp_path / "evil.tar", _file("a.c", type=tarfile.GNUTYPE_SPARSE)))


def test_a_link_to_follow_with_a_file_is_refused(tmp_path: Path) -> None:
    link = _file("codegen", type=tarfile.SYMTYPE, linkname=str(tmp_path))
    with pytest.raises(ModelError):
        mlf.read(_tar(tmp_path / "evil.tar", link, _file("codegen/a.c", b"int x;")))
    assert not (tmp_path / "a.c").exists()


def test_names_that_cannot_stand_beside_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="twice"):
        mlf.read(_tar(tmp_path / "twice.tar", _file("a.c", b"1"), _file("a.c", b"2")))
    with pytest.raises(ModelError, match="below a file"):
        mlf.read(_tar(tmp_path / "below.tar", _file("a", b"1"), _file("a/b/c.c", b"2")))


def test_a_huge_member_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = _tar(tmp_path / "huge.tar")
    member = tarfile.TarInfo("a.c")
    member.size = 1 << 40
    valid = path.read_bytes().rstrip(b"\0")
    valid += bytes(-len(valid) % tarfile.BLOCKSIZE)
    path.write_bytes(valid + member.tobuf(tarfile.GNU_FORMAT) + bytes(20 * tarfile.BLOCKSIZE))
    with pytest.raises(ModelError, match="larger"):
        mlf.read(path)


def test_a_huge_file_is_refused_before_it_is_read(archive: Path) -> None:
    with archive.open("ab") as file:
        file.truncate(1 << 40)  # sparse
    with pytest.raises(ModelError, match="larger"):
        mlf.read(archive)


def test_too_many_members_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="larger"):
        mlf.read(_tar(tmp_path / "many.tar", *(_file(f"f{i}.c") for i in range(1001))))


def test_a_chain_of_extended_headers_is_refused(tmp_path: Path) -> None:
    long_name = _file("././@LongLink", b"a.c\0", type=tarfile.GNUTYPE_LONGNAME)
    with pytest.raises(ModelError):
        mlf.read(_tar(tmp_path / "chain.tar", *[long_name] * 5000))


def test_no_truncation_goes_unnoticed(archive: Path, tmp_path: Path) -> None:
    content = archive.read_bytes()
    end = len(content.rstrip(b"\0"))
    cut = tmp_path / "cut.tar"
    for length in [*range(0, end + 1, 256), end]:
        cut.write_bytes(content[:length])
        with pytest.raises(ModelError):
            mlf.read(cut)


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"\0" * 10240, b"PK\x03\x04" * 200])
def test_files_that_are_no_archive_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(ModelError, match=r"x\.tar"):
        mlf.read(tmp_path / "x.tar")


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.tar"):
        mlf.read(tmp_path / "none.tar")
    with pytest.raises(ModelError):
        mlf.read(tmp_path)


def _with_document(path: Path, document: bytes) -> Path:
    with tarfile.open(path, "w") as tar:
        member, content = _file("metadata.json", document)
        tar.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"\xff\xfe",
        b'{"version": 7}',
        b'{"version": 7, "modules": []}',
        b'{"version": 7, "modules": {}}',
        b'{"version": 7, "modules": {"a": "mcuforge"}}',
        b'{"version": 7, "modules": {"a": {"mcuforge": {}}}}',
        b"[" * 100000,
    ],
)
def test_metadata_that_means_nothing_is_refused(tmp_path: Path, document: bytes) -> None:
    with pytest.raises(ModelError):
        mlf.read(_with_document(tmp_path / "x.tar", document))


def test_another_version_is_refused_and_named(archive: Path, tmp_path: Path) -> None:
    metadata = {**_metadata(archive), "version": 5}
    with pytest.raises(ModelError, match="version 5, not 7") as caught:
        mlf.read(_with_document(tmp_path / "x.tar", json.dumps(metadata).encode()))
    assert "compile" in caught.value.hint


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("entry", "system(); int x"),
        ("entry", "tvmgen_tiny_run\n"),
        ("header", "../../etc/passwd.h"),
        ("header", "tvmgen_tiny.h\n"),
        ("core", "cortex-m7 -fplugin=x.so"),
        ("codegen", "ptx"),
        ("inputs", []),
        ("workspace_bytes", -1),
        ("opt_level", 9),
    ],
)
def test_values_that_would_end_up_in_a_build_are_checked(
    archive: Path, tmp_path: Path, key: str, value: object
) -> None:
    metadata = _metadata(archive)
    metadata["modules"]["tiny"]["mcuforge"][key] = value
    with pytest.raises(ModelError, match=key):
        mlf.read(_with_document(tmp_path / "x.tar", json.dumps(metadata).encode()))
    with pytest.raises(ConfigError, match=key):
        mlf.write(tmp_path / "y.tar", metadata, {})


@pytest.mark.parametrize(
    "name",
    ["", "..", "../tiny", "/etc/tiny", "a/b", "tiny\n", "a-b", "7up", "größe", 'a"', "a" * 41],
)
def test_names_that_would_end_up_in_paths_are_checked(
    archive: Path, tmp_path: Path, name: str
) -> None:
    metadata = _metadata(archive)
    metadata["modules"] = {name: metadata["modules"]["tiny"]}
    with pytest.raises(ModelError, match="does not match"):
        mlf.read(_with_document(tmp_path / "x.tar", json.dumps(metadata).encode()))


_COMPILE = """
import sys
from pathlib import Path
from mcuforge.compiler import compile_model
from mcuforge.target import Target
model, *jobs = sys.argv[1:]
for job in jobs:
    target, level, output = job.split(":")
    compile_model(Path(model), "tiny", Target.parse(target), int(level), Path(output))
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Path]]:
    """One small model, compiled by two processes that have as little in common as possible."""
    results = []
    for seed in ("1", "2"):
        directory = tmp_path_factory.mktemp(f"place{seed}" * int(seed))
        (directory / "model.tflite").write_bytes(tiny.model())
        jobs = {"c": "cortex-m55-c:3", "float": "cortex-m7-c:0", "llvm": "cortex-m55-llvm:2"}
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": str(ROOT / "src"),
            "TMPDIR": str(directory),
            "TZ": f"UTC{seed}",
        }
        arguments = [f"{job}:{name}.tar" for name, job in jobs.items()]
        subprocess.run(
            [sys.executable, "-c", _COMPILE, "model.tflite", *arguments],
            cwd=directory,
            env=environment,
            check=True,
        )
        results.append({name: directory / f"{name}.tar" for name in jobs})
    return results


@pytest.mark.parametrize("name", ["c", "float", "llvm"])
def test_compilation_is_reproducible(compiled: list[dict[str, Path]], name: str) -> None:
    first, second = (mlf.read(paths[name]) for paths in compiled)
    assert first.metadata == second.metadata
    assert sorted(first.members) == sorted(second.members)
    for member in first.members:
        assert first.members[member] == second.members[member], member
    assert compiled[0][name].read_bytes() == compiled[1][name].read_bytes()


@pytest.mark.parametrize("name", ["c", "float", "llvm"])
def test_no_path_of_this_machine_is_in_an_archive(
    compiled: list[dict[str, Path]], name: str
) -> None:
    content = compiled[0][name].read_bytes()
    for path in (compiled[0][name].parent, ROOT, sys.prefix, Path.home()):
        assert os.fsencode(str(path)) not in content


def test_layout_and_memory_follow_the_format(compiled: list[dict[str, Path]]) -> None:
    archive = mlf.read(compiled[0]["llvm"])
    assert sorted(archive.members) == [
        "LICENSE.md",
        "codegen/host/include/tvmgen_tiny.h",
        "codegen/host/lib/tvmgen_tiny_kernels.o",
        "codegen/host/src/tvmgen_tiny.c",
        "codegen/host/src/tvmgen_tiny_weights.c",
        "executor-config/aot/tiny.json",
        "parameters/tiny.params",
        "src/relax.txt",
    ]
    module = archive.metadata["modules"]["tiny"]
    (target,) = module["target"]
    assert json.loads(target)["mcpu"] == "cortex-m55"
    functions = module["memory"]["functions"]
    (main,) = functions["main"]
    assert main["workspace_size_bytes"] == archive.info.workspace_bytes > 0
    assert main["constants_size_bytes"] == archive.info.weights_bytes > 4 * 9 + 3 * 256
    assert main["io_size_bytes"] == 64 + 3
    assert main["inputs"] == {
        port.c_name: {"dtype": "int8", "size": 64} for port in archive.info.inputs
    }
    operators = {entry.symbol for entry in archive.info.operators} - {"memcpy"}
    assert [f["function_name"] for f in functions["operator_functions"]] == sorted(operators)
    constants = sum(
        f["workspace"][0]["constants_size_bytes"] for f in functions["operator_functions"]
    )
    assert constants == archive.info.weights_bytes


def test_executor_configuration_says_where_everything_is(compiled: list[dict[str, Path]]) -> None:
    archive = mlf.read(compiled[0]["c"])
    config = json.loads(archive.members["executor-config/aot/tiny.json"])
    assert config["workspace_bytes"] == archive.info.workspace_bytes
    assert [call["macs"] for call in config["calls"]] == [
        entry.macs for entry in archive.info.operators
    ]
    for call in config["calls"]:
        for name in call["args"]:
            tensor = config["tensors"][name]
            if tensor["kind"] == "temporary":
                assert tensor["workspace_offset"] >= 0
                assert tensor["workspace_offset"] + tensor["bytes"] <= config["workspace_bytes"]
            else:
                assert tensor["workspace_offset"] is None


def test_parameters_are_the_constants(compiled: list[dict[str, Path]]) -> None:
    tvm = pytest.importorskip("tvm")
    archive = mlf.read(compiled[0]["c"])
    parameters = tvm.runtime.load_param_dict(archive.members["parameters/tiny.params"])
    config = json.loads(archive.members["executor-config/aot/tiny.json"])
    constants = {n: t for n, t in config["tensors"].items() if t["kind"] == "constant"}
    assert {str(name) for name in parameters} == set(constants)
    for name, value in parameters.items():
        assert value.numpy().nbytes == constants[str(name)]["bytes"]


@pytest.mark.parametrize("module", ["mlf", "firmware", "boards", "runner", "results.records"])
def test_what_follows_compilation_needs_no_tvm(module: str) -> None:
    # As on a machine without it: importing TVM would fail.
    code = f"import sys; sys.modules['tvm'] = None; import mcuforge.{module}"
    subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        check=True,
    )
