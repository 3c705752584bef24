"""Documents and comments speak of files and modules that are there."""

import re
from pathlib import Path

import pytest

import mcuforge

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src" / "mcuforge"
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "config" / "README.md",
    *sorted(ROOT.glob("docs/*.md")),
]
# Where a path in a document may start.
STARTS = (ROOT, SOURCES)
# What readers of CONTRIBUTING.md make.
EXAMPLES = {
    "operators/absolute.py",
    "passes/join_transposes.py",
    "kernels/helium/absolute.py",
}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_a_document_names_exist(document: Path) -> None:
    text = document.read_text()
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    assert [link for link in links if not (document.parent / link).exists()] == []
    code = re.findall(r"`((?:[\w-]+/)+[\w-]+\.(?:py|smk|yaml|in|lock|sh|j2))`", text)
    rooms = re.findall(r"`((?:src/mcuforge|workflow|tests|envs|profiles|scripts)/[\w/-]*)`", text)
    missing = {name for name in code + rooms if not any((s / name).exists() for s in STARTS)}
    assert missing == (EXAMPLES if document.name == "CONTRIBUTING.md" else set())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_definitions_a_document_names_exist(document: Path) -> None:
    """As in "`compiler.py`: `compile_model`"."""
    named = re.findall(r"`((?:[\w-]+/)*[\w-]+\.py)`:\s+`(\w+)`", document.read_text())
    assert [f"{file}: {name}" for file, name in named if not _defines(SOURCES / file, name)] == []
    if document.name == "tour.md":
        assert len(named) > 30


def _defines(module: Path, name: str) -> bool:
    """Whether a module has a function, class or constant of this name."""
    pattern = rf"^(def |class |){name}\b"
    return module.is_file() and bool(re.search(pattern, module.read_text(), re.MULTILINE))


def test_decisions_are_in_the_index_and_say_what_would_change_them() -> None:
    text = (ROOT / "docs" / "decisions.md").read_text()
    titles = re.findall(r"^### (.*)$", text, re.MULTILINE)
    # As GitHub makes anchors of titles.
    anchors = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
    index = re.findall(r"^- \[(.*)\]\(#(.*)\)$", text, re.MULTILINE)
    assert index == list(zip(titles, anchors, strict=True))
    decisions = re.split(r"^##.*$", text, flags=re.MULTILINE)[1:]
    without = [d for d in decisions if d.strip() and not re.search(r"\n\nWould change it: .*", d)]
    assert without == []


def test_the_version_stands_in_the_citation() -> None:
    assert f"\nversion: {mcuforge.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_every_device_source_says_under_which_licence_it_stands() -> None:
    sources = [path for path in (SOURCES / "device").rglob("*") if path.is_file()]
    said = "SPDX-License-Identifier: Apache-2.0"
    assert [str(p) for p in sources if said not in p.read_text().partition("\n")[0]] == []


def _exists(name: str) -> bool:
    """Whether a dotted name below mcuforge is a module, or something a module defines."""
    *parents, last = name.split(".")
    inner = SOURCES.joinpath(*parents)
    if (inner / last).is_dir() or (inner / f"{last}.py").is_file():
        return True
    module = inner / "__init__.py" if inner.is_dir() else inner.with_suffix(".py")
    pattern = rf"^(def |class |from .*\b)?{last}\b"
    return module.is_file() and bool(re.search(pattern, module.read_text(), re.MULTILINE))


def test_modules_a_docstring_names_exist() -> None:
    rooms = "|".join(path.name for path in SOURCES.iterdir() if (path / "__init__.py").exists())
    missing = []
    for file in sorted(SOURCES.rglob("*.py")):
        for name in re.findall(rf"``((?:{rooms})(?:\.\w+)+)``", file.read_text()):
            missing += [] if _exists(name) else [f"{file.relative_to(ROOT)}: {name}"]
    assert missing == []
