"""Which kernel an operation gets: by what was declared, not by the order of imports."""

import importlib
import itertools
import json
import pkgutil
import random
import subprocess
import sys
from dataclasses import replace

import pytest

import mcuforge.kernels
import mcuforge.operators
from mcuforge.passes import MAX_OPT_LEVEL
from mcuforge.target import FEATURES
from mcuforge.tir.registry import KERNELS, Declaration, Kernel, KernelTable

FEATURE_SETS = [
    set(chosen)
    for count in range(len(FEATURES) + 1)
    for chosen in itertools.combinations(sorted(FEATURES), count)
]
QUESTIONS = [
    (op, level, features)
    for op in sorted({d.op for d in KERNELS.declarations})
    for level in range(MAX_OPT_LEVEL + 1)
    for features in FEATURE_SETS
]
# Imports the modules named on the command line, then answers the questions on standard input.
_ANSWER = """\
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
from mcuforge.tir.registry import KERNELS
print(json.dumps([
    [f"{d.builder.__module__}.{d.builder.__name__}" for d in KERNELS.candidates(*question)]
    for question in ((op, level, set(features)) for op, level, features in json.load(sys.stdin))
]))
"""


def answers(table: KernelTable) -> list[list[str]]:
    return [
        [f"{d.builder.__module__}.{d.builder.__name__}" for d in table.candidates(*question)]
        for question in QUESTIONS
    ]


def test_the_order_of_declarations_does_not_matter() -> None:
    expected = answers(KERNELS)
    assert sum(len(found) > 1 for found in expected) > 0, "ranks decide nothing"
    for seed in range(10):
        declarations = list(KERNELS.declarations)
        random.Random(seed).shuffle(declarations)
        shuffled = KernelTable()
        for declaration in declarations:
            shuffled.declare(declaration)
        assert answers(shuffled) == expected


def test_the_order_of_imports_does_not_matter() -> None:
    """A fresh process imports the files of kernels in the opposite order."""
    modules = [
        module.name
        for package in (mcuforge.kernels, mcuforge.operators)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not module.ispkg
    ]
    # An import of any of them would import its package first, and with it all in order.
    quiet = "import sys, types\n" + "".join(
        f"module = types.ModuleType({name!r})\n"
        f"module.__path__ = {list(importlib.import_module(name).__path__)!r}\n"
        f"sys.modules[{name!r}] = module\n"
        for name in ("mcuforge.kernels", "mcuforge.operators")
    )
    questions = json.dumps([(op, level, sorted(features)) for op, level, features in QUESTIONS])
    done = subprocess.run(
        [sys.executable, "-c", quiet + _ANSWER, *reversed(modules)],
        input=questions,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == answers(KERNELS)


def _declaration(rank: int = 0, needs: set[str] = frozenset(), unless: set[str] = frozenset()):
    def builder(_operation) -> Kernel | None:
        return None

    return Declaration("op", 3, frozenset(needs), frozenset(unless), rank, builder)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (_declaration(), _declaration()),
        (_declaration(), _declaration(needs={"dsp"})),
        (_declaration(needs={"dsp"}), _declaration(needs={"helium"})),
    ],
)
def test_two_kernels_that_tie_are_refused(one: Declaration, other: Declaration) -> None:
    for pair in ((one, other), (other, one)):
        table = KernelTable()
        table.declare(pair[0])
        with pytest.raises(ValueError, match="rank 0") as caught:
            table.declare(pair[1])
        assert "\n" not in str(caught.value)
        assert "_declaration.<locals>.builder" in str(caught.value)
        assert table.declarations == [pair[0]]


@pytest.mark.parametrize(
    "other",
    [
        _declaration(rank=1),
        _declaration(needs={"helium"}),
        replace(_declaration(), op="another"),
        replace(_declaration(), opt_level=4),
    ],
)
def test_kernels_that_never_meet_do_not_tie(other: Declaration) -> None:
    table = KernelTable()
    table.declare(_declaration(needs={"dsp"}, unless={"helium"}))
    table.declare(other)


def test_a_feature_no_core_has_is_refused() -> None:
    with pytest.raises(ValueError, match="no core has the feature mve"):
        KernelTable().declare(_declaration(unless={"mve"}))


def test_the_lowest_rank_that_builds_is_taken() -> None:
    asked = []

    def declare(table: KernelTable, name: str, rank: int, built: str | None) -> None:
        def builder(_operation):
            asked.append(name)
            return built

        table.declare(replace(_declaration(rank), builder=builder))

    class Op:
        name = "op"

    table = KernelTable()
    declare(table, "last", 2, "kernel of last")
    declare(table, "first", 0, None)
    declare(table, "second", 1, "kernel of second")
    assert table.select(Op, 3, set()) == "kernel of second"
    assert asked == ["first", "second"]
    assert table.select(Op, 2, set()) is None
