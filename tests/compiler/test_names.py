"""Names of tensors and models are data: whatever they hold, C gets names that are its own."""

import re
import shutil
import subprocess
from pathlib import Path

import flatbuffers
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given
from hypothesis import strategies as st

from helpers import tiny
from helpers.host import WARNINGS
from helpers.tflite_graphs import Graph, Spec
from mcuforge import cli, mlf
from mcuforge.codegen import names
from mcuforge.compiler import compile_model
from mcuforge.errors import ConfigError
from mcuforge.executors.ports import interface
from mcuforge.formats.description import Description, Tensor
from mcuforge.target import Target

CASES = Path(__file__).parents[3] / "shared" / "data" / "cases"
HOSTILE = (
    "a*/b", "/* c", "??/\nint injected;", "back\\\nslash", "\x1b[31m\u202e", "", "class", "x:0",
    "X/0", "int8_t", "INT32_MIN", "linux", "errno", "memcpy", "workspace", "../../etc", "7up",
    "k" * 300, "K" * 299 + "1", "K" * 299 + "2", "and", "%s%n", '"; #error', "#define x y", "é",
    "\u212a",
)  # fmt: skip


def _described(inputs: list[str], outputs: list[str], name: str = "m") -> Description:
    def tensors(group: list[str]) -> tuple[Tensor, ...]:
        return tuple(Tensor(text, (1,), "int8", 1.0, 0, 1) for text in group)

    return Description(name, "", 0, tensors(inputs), tensors(outputs), (), 0, 0)


@given(st.lists(st.text() | st.sampled_from(HOSTILE)), st.lists(st.sampled_from(HOSTILE)))
def test_ports_have_short_legal_names_of_their_own(inputs: list[str], outputs: list[str]) -> None:
    found = [port.c_name for port in interface(_described(inputs, outputs)).ports]
    assert all(re.fullmatch("[a-z][a-z0-9_]{0,62}", name) for name in found)
    assert len(set(found)) == len(found)
    assert not {"class", "int8_t", "linux", "errno", "memcpy", "workspace", "and"} & set(found)


def test_ports_are_named_after_tensors() -> None:
    ports = interface(_described(["serving_default_x:0", "X", "class"], ["x", "7up", ""]))
    assert [port.c_name for port in ports.inputs] == ["serving_default_x_0", "x", "input_class"]
    assert [port.c_name for port in ports.outputs] == ["x_1", "output_7up", "output"]


@given(st.text())
def test_comments_hold_harmless_text(text: str) -> None:
    comment = names.comment(text)
    assert len(comment) <= 120 and comment.isascii() and (comment.isprintable())
    assert not re.search(r"[*?\\]", comment)


def test_names_of_models_in_use_are_comments_as_they_are() -> None:
    for text in ("model/dense;x/BiasAdd:0", "StatefulPartitionedCall:0", "input_1_int8"):
        assert names.comment(text) == text


def _named(*texts: str) -> bytes:
    """A concatenation; TVM names what its kernel reads and writes after the model's tensors."""
    graph = Graph()
    parts = [graph.input(Spec((1, 4), "int8", 0.5)) for _ in texts[1:]]
    whole = Spec((1, 4 * len(parts)), "int8", 0.5)
    content = graph.build(graph.op("CONCATENATION", parts, whole, axis=1))
    model = schema.ModelT.InitFromPackedBuf(content)
    (subgraph,) = model.subgraphs
    for index, text in zip((*subgraph.outputs, *subgraph.inputs), texts, strict=True):
        subgraph.tensors[index].name = text
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _build(directory: Path, includes: str) -> None:
    """Compile all that was extracted, and a C and a C++ file with its headers, without warning."""
    for compiler in ("gcc", "g++", "clang-19"):
        if shutil.which(compiler) is None:
            pytest.skip(f"{compiler} is not installed")
    host = directory / "codegen/host"
    (directory / "u.c").write_text(f"{includes}extern int unit;\n")
    (directory / "u.cc").write_text(f"{includes}extern int unit;\n")
    sources = sorted(map(str, host.glob("src/*.c")))
    for command in (
        ["gcc", "-std=c99", "-Wcomment", "-Wtrigraphs", *sources, str(directory / "u.c")],
        ["clang-19", "-std=c99", *sources, str(directory / "u.c")],
        ["gcc", "-std=gnu17", *sources],  # which defines `linux`
        ["g++", "-std=c++17", str(directory / "u.cc")],
    ):
        flags = [*WARNINGS, f"-I{host / 'include'}", "-fsyntax-only"]
        done = subprocess.run([*command, *flags], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_of_tensors_compile(text: str, tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(_named(text, f"{text}2", f"2{text}"))
    compile_model(tmp_path / "m.tflite", "m", Target("host"), 1, tmp_path / "m.tar")
    archive = mlf.read(tmp_path / "m.tar")
    archive.extract(tmp_path)
    _build(tmp_path, '#include "tvmgen_m.h"\n')
    code = b"".join(archive.members[m] for m in archive.members if m.startswith("codegen/"))
    assert not re.search(rb"^int injected", code, re.M)


@pytest.mark.parametrize(
    "case",
    [
        "port-names.comment_end", "port-names.same_c_name", "port-names.same_name",
        "long-output-name", "vww_layer15",
    ],
)  # fmt: skip
def test_cases_of_names_compile(case: str, tmp_path: Path) -> None:
    source = CASES / f"{case}.tflite"
    if not source.is_file():
        pytest.skip(f"{source} is not there")
    compile_model(source, "m", Target("cortex-m7"), 3, tmp_path / "m.tar")
    mlf.read(tmp_path / "m.tar").extract(tmp_path)
    _build(tmp_path, '#include "tvmgen_m.h"\n')


def test_models_whose_names_differ_in_case_live_in_one_program(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(tiny.model())
    spelled = ("kws", "KWS", "Kws")
    for name in spelled:
        compile_model(tmp_path / "m.tflite", name, Target("host"), 1, tmp_path / f"{name}.tar")
        mlf.read(tmp_path / f"{name}.tar").extract(tmp_path)
    _build(tmp_path, "".join(f'#include "tvmgen_{name}.h"\n' for name in spelled))
    text = (tmp_path / "codegen/host/include/tvmgen_kws.h").read_text()
    assert "#define TVMGEN_KWS_H\n" in text and "#define TVMGEN_KWS_WORKSPACE_SIZE" in text


@pytest.mark.parametrize(
    "name",
    ["", "a/b", "../kws", "7up", "größe", "kws-1", "a.b", "a" * 41, "kws\n", "a\0", "_kws", " kws"],
)
def test_a_name_no_model_can_have_is_refused_at_once(name: str, tmp_path: Path) -> None:
    output = tmp_path / "out.tar"
    with pytest.raises(ConfigError, match=r"cannot name a model: .*--name \w") as error:
        compile_model(tmp_path / "absent.tflite", name, Target("host"), 1, output)
    assert str(error.value).isprintable() and len(str(error.value)) < 300
    proposal = str(error.value).split("--name ")[1].rstrip(")")
    (tmp_path / "m.tflite").write_bytes(tiny.model())
    compile_model(tmp_path / "m.tflite", proposal, Target("host"), 1, output)


def test_a_files_name_that_cannot_be_the_models_needs_another(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my-model.v2.tflite").write_bytes(tiny.model())
    assert cli.main(["compile", "my-model.v2.tflite"]) == 1
    error = capsys.readouterr().err
    assert "'my-model.v2' cannot name a model" in error and "--name my_model_v2" in error
    assert [path.name for path in tmp_path.iterdir()] == ["my-model.v2.tflite"]
    assert cli.main(["compile", "my-model.v2.tflite", "--name", "my_model_v2"]) == 0
    assert Path("my_model_v2.tar").is_file()
