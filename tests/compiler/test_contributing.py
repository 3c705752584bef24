"""The examples of CONTRIBUTING.md, made in a copy of the package, do what it says of them."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Compiles two transpositions that undo each other, then ABS, and answers with what came of it.
_TRY = """\
import json, sys
from pathlib import Path
import numpy as np
from helpers.tflite_graphs import Graph, Spec
import mcuforge
from mcuforge import boards, check, compiler, mlf, target, toolchains
from mcuforge.boards import flashing
from mcuforge.results import columns, records

directory = Path(sys.argv[1])
model, archive = directory / "model.tflite", directory / "model.tar"
graph, image = Graph(), Spec((1, 8, 4, 16), "int8", 0.5, 0)
x = graph.input(image)
for axes, shape in (([0, 3, 1, 2], (1, 16, 8, 4)), ([0, 2, 3, 1], image.shape)):
    x = graph.op("TRANSPOSE", [x, graph.constant(np.int32(axes))], Spec(shape, "int8", 0.5, 0))
model.write_bytes(graph.build(graph.op("ABS", [x], image)))
compiler.compile_model(model, "model", target.Target("cortex-m55"), 3, archive)
source = next(f for f in mlf.read(archive).extract(directory) if f.name == "tvmgen_model.c")
types = boards.load(Path(mcuforge.__file__).parent / "registries" / "boards.yaml").types
print(json.dumps({
    "checked": check.check_model(archive, model),
    "operators": [operator.op for operator in mlf.read(archive).info.operators],
    "instruction": "mcuforge_vqabs_s8(" in source.read_text(),
    "target": types["mps2_an385"].target("gcc"),
    "program": flashing.RUNNERS["picotool"].program,
    "codegen": toolchains.TOOLCHAINS["tvm-llvm-gcc"].codegen,
    "column": records.columns(columns.Row)["stack_bound_bytes"].source,
}))
"""


def insert(file: Path, before: str, text: str) -> None:
    """Put `text` in front of the one place where a file says `before`."""
    content = file.read_text()
    assert content.count(before) == 1, f"{file}: {before}"
    file.write_text(content.replace(before, text + before))


def make(package: Path, examples: dict[str, list[str]]) -> None:
    """Change a copy of the package as the examples say."""
    operator, supported, _ = examples["An operator"]
    (package / "operators" / "absolute.py").write_text(operator)
    insert(package / "formats/tflite/supported.py", '    "ADD": replace(', supported)
    joined, _ = examples["A pass"]
    (package / "passes" / "join_transposes.py").write_text(joined)
    pipeline = package / "passes" / "pipeline.py"
    insert(pipeline, "        FusePad(),\n", "        JoinTransposes(),\n")
    insert(
        pipeline,
        "from mcuforge.passes.rest",
        "from mcuforge.passes.join_transposes import JoinTransposes\n",
    )
    instruction, kernel = examples["A core's instructions"]
    with (package / "isa" / "helium.py").open("a") as helium:
        helium.write(instruction)
    (package / "kernels" / "helium" / "absolute.py").write_text(kernel)
    with (package / "registries" / "boards.yaml").open("a") as boards:
        boards.write(examples["A board"][0])
    arguments, runner, _ = examples["A flash runner"]
    insert(package / "boards" / "flashing.py", "RUNNERS = {\n", arguments)
    insert(package / "boards" / "flashing.py", '    "west": Runner(', runner)
    insert(package / "toolchains.py", '"gcc": _GCC', examples["A toolchain"][0])
    insert(package / "results/columns.py", "    max_abs_error: ", examples["A column"][0])


def test_the_examples_do_what_is_said_of_them(tmp_path: Path) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    sections = re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    fence = re.compile(r"^```(?:python|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    package = tmp_path / "mcuforge"
    shutil.copytree(
        ROOT / "src" / "mcuforge", package, ignore=shutil.ignore_patterns("__pycache__")
    )
    make(package, {title: fence.findall(body) for title, body in sections})
    done = subprocess.run(
        [sys.executable, "-c", _TRY, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "checked": "checked: 25 inputs, all outputs equal LiteRT's",
        "operators": ["lookup"],
        "instruction": True,
        "target": "cortex-m3-c",
        "program": "picotool",
        "codegen": "llvm",
        "column": "firmware",
    }
