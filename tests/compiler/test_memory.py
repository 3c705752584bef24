"""Order of steps, places of tensors, and kernels that overwrite their operands."""

import ctypes
import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import tiny
from helpers.host import HostModel
from mcuforge import compiler, passes
from mcuforge.codegen.memory import (
    ALIGNMENT,
    Block,
    MemoryPlan,
    is_valid,
    lower_bound,
    place,
    plan_memory,
    reorder,
)
from mcuforge.codegen.program import Program, Step, Tensor
from mcuforge.executors import generate
from mcuforge.formats.tflite import describe, importer
from mcuforge.models import vectors
from mcuforge.target import Target
from mcuforge.tir import inplace
from mcuforge.tir.geometry import Axis, Geometry
from mcuforge.tir.registry import SAME_PLACE

MODELS = Path(__file__).parents[3] / "shared" / "data" / "models"
# Bytes of TensorFlow Lite Micro's arena on a Cortex-M7.
ARENAS = {
    "kws_ref_model": 22_820,
    "vww_96_int8": 100_708,
    "pretrainedResnet_quant": 54_996,
    "ad01_int8": 2_580,
    "str_ww_ref_model": 16_596,
}
TARGET = Target.parse("cortex-m7-c")

# --- placement -----------------------------------------------------------------------------------


@st.composite
def placements(draw, most: int, largest: int, least_distance: int = 0):
    """Blocks, and pairs of a result and an operand that dies when the result begins."""
    blocks = []
    for index in range(draw(st.integers(1, most))):
        first = draw(st.integers(0, 5))
        last = draw(st.integers(first, 5))
        blocks.append(Block(f"b{index}", draw(st.integers(1, largest)), first, last))
    overlaps = {}
    for result, operand in itertools.permutations(blocks, 2):
        # A step has one result: the first block that begins at its time.
        begins = next(b for b in blocks if b.first == result.first)
        dies = operand.last == result.first and operand.first < operand.last
        if result is begins and dies and draw(st.booleans()):
            distance = draw(st.integers(least_distance, result.bytes - 1))
            if distance == SAME_PLACE:
                # The only one of the step.
                if result.bytes > operand.bytes or any(pair[0] == result.name for pair in overlaps):
                    continue
            elif SAME_PLACE in [d for pair, d in overlaps.items() if pair[0] == result.name]:
                continue
            overlaps[result.name, operand.name] = distance
    return blocks, overlaps


def disjoint_or_allowed(blocks, overlaps, offsets) -> bool:
    """The rules of placement, spelled out."""
    for a, b in itertools.combinations(blocks, 2):
        if a.last < b.first or b.last < a.first:
            continue
        x, y = a.name, b.name
        distance = overlaps.get((x, y), overlaps.get((y, x)))
        if distance == SAME_PLACE and offsets[x] == offsets[y]:
            continue
        if offsets[x] + a.bytes <= offsets[y] or offsets[y] + b.bytes <= offsets[x]:
            continue
        if distance != SAME_PLACE and (
            ((x, y) in overlaps and offsets[x] + distance <= offsets[y])
            or ((y, x) in overlaps and offsets[y] + distance <= offsets[x])
        ):
            continue
        return False
    return True


def smallest(blocks, overlaps, limit: int) -> int:
    """Bytes of the best placement, by trying all aligned offsets below a limit."""
    best = limit

    def descend(placed: dict[str, int], used: int) -> None:
        nonlocal best
        if used >= best:
            return
        if len(placed) == len(blocks):
            best = used
            return
        block = blocks[len(placed)]
        for offset in range(0, best - block.bytes, ALIGNMENT):
            here = {**placed, block.name: offset}
            if disjoint_or_allowed(blocks[: len(here)], overlaps, here):
                descend(here, max(used, offset + block.bytes))

    descend({}, 0)
    return best


def end(blocks, offsets) -> int:
    return max(offsets[block.name] + block.bytes for block in blocks)


@given(placements(most=12, largest=200, least_distance=SAME_PLACE))
@settings(max_examples=150, deadline=None)
def test_live_blocks_overlap_only_as_allowed(case):
    blocks, overlaps = case
    offsets = place(blocks, overlaps)
    assert disjoint_or_allowed(blocks, overlaps, offsets)
    assert is_valid(blocks, overlaps, offsets)
    assert all(offset % ALIGNMENT == 0 for offset in offsets.values())
    assert end(blocks, offsets) >= lower_bound(blocks, overlaps)


@given(placements(most=5, largest=60))
@settings(max_examples=60, deadline=None)
def test_placement_of_few_blocks_is_optimal(case):
    blocks, overlaps = case
    size = end(blocks, place(blocks, overlaps))
    best = smallest(blocks, overlaps, size + 1)
    assert size == best
    assert lower_bound(blocks, overlaps) <= best


@given(placements(most=5, largest=60), st.integers(0, 300))
@settings(max_examples=60, deadline=None)
def test_any_placement_within_a_limit_will_do(case, limit):
    blocks, overlaps = case
    found = place(blocks, overlaps, limit=limit)
    assert disjoint_or_allowed(blocks, overlaps, found)
    if end(blocks, found) > limit:
        assert end(blocks, place(blocks, overlaps)) > limit


def test_an_invalid_placement_is_noticed():
    blocks = [Block("a", 32, 0, 1), Block("b", 32, 1, 2)]
    assert is_valid(blocks, {("b", "a"): 16}, {"a": 16, "b": 0})
    assert not is_valid(blocks, {("b", "a"): 17}, {"a": 16, "b": 0})
    assert not is_valid(blocks, {}, {"a": 16, "b": 0})
    assert is_valid(blocks, {}, {"a": 32, "b": 0})


def test_greedy_placements_are_improved_upon():
    # Largest first stacks the small block on both large ones.
    blocks = [
        Block("a", 128, 0, 1),
        Block("b", 128, 1, 2),
        Block("c", 16, 2, 3),
        Block("d", 128, 3, 4),
        Block("e", 128, 4, 5),
    ]
    assert end(blocks, place(blocks, {})) == lower_bound(blocks, {}) == 256


# --- order ---------------------------------------------------------------------------------------


def tensor(name: str, size: int, kind: str = "temporary") -> Tensor:
    return Tensor(name, (size,), "int8", kind)


@st.composite
def programs(draw, most: int = 6):
    """Steps that read any of the tensors before them; the last one writes an output."""
    inputs = tuple(
        tensor(f"input{i}", draw(st.integers(1, 100)), "input")
        for i in range(draw(st.integers(1, 2)))
    )
    available, steps = list(inputs), []
    count = draw(st.integers(1, most))
    for index in range(count):
        operands = draw(st.lists(st.sampled_from(available), min_size=1, max_size=2))
        size = draw(st.sampled_from([operands[0].bytes, draw(st.integers(1, 100))]))
        is_output = index == count - 1 or draw(st.integers(0, 4)) == 0
        kind = "output" if is_output else "temporary"
        result = tensor(f"output{index}" if kind == "output" else f"tensor{index}", size, kind)
        scratch = [tensor(f"scratch{index}_0", draw(st.integers(1, 40)))]
        steps.append(
            Step(
                kernel=f"kernel{index}",
                op="any",
                args=(*operands, result),
                scratch=tuple(scratch[: draw(st.integers(0, 1))]),
                macs=draw(st.integers(0, 3)),
                inplace=draw(
                    st.dictionaries(
                        st.integers(0, len(operands) - 1), st.integers(SAME_PLACE, 100), max_size=2
                    )
                ),
            )
        )
        available.append(result)
    outputs = tuple(step.result for step in steps if step.result.kind == "output")
    return Program(inputs, outputs, (), tuple(steps))


def orders(program: Program) -> Iterator[tuple[Step, ...]]:
    for order in itertools.permutations(program.steps):
        known = {tensor.name for tensor in program.inputs}
        for step in order:
            if not {operand.name for operand in step.args[:-1]} <= known:
                break
            known.add(step.result.name)
        else:
            yield order


def peak(program: Program, io_in_workspace: bool) -> int:
    """The most live bytes, sizes rounded up; results over dying operands count once."""
    kinds = {"temporary", "input", "output"} if io_in_workspace else {"temporary"}

    def size(tensor: Tensor) -> int:
        return -(-tensor.bytes // ALIGNMENT) * ALIGNMENT if tensor.kind in kinds else 0

    worst = 0
    for index, step in enumerate(program.steps):
        later = {t.name for s in program.steps[index + 1 :] for t in s.args[:-1]}
        later |= {t.name for t in program.outputs}
        before = {t.name: t for s in program.steps[:index] for t in s.args if t.kind != "input"}
        before |= {t.name: t for t in program.inputs}
        needed = later | {t.name for t in step.args[:-1]}
        live = sum(size(t) for name, t in before.items() if name in needed)
        operands = {t.name: t for t in step.args[:-1]}
        saved, distances = 0, []
        for name, operand in operands.items():
            used = [p for p, t in enumerate(step.args[:-1]) if t.name == name]
            values = {step.inplace.get(p) for p in used}
            if None in values or name in later or not size(operand) or not size(step.result):
                continue
            if SAME_PLACE in values:
                if max(values) > 0 or operand.bytes < step.result.bytes:
                    continue
                values = {0}
            distances.append(-(-max(values) // ALIGNMENT) * ALIGNMENT)
            saved += size(operand)
        if distances:
            saved = max(min(saved, size(step.result) - min(distances)), 0)
        live += size(step.result) + sum(size(t) for t in step.scratch) - saved
        worst = max(worst, live)
    return worst


@given(programs(), st.booleans())
@settings(max_examples=80, deadline=None)
def test_no_order_needs_less_live_memory(program, io_in_workspace):
    chosen = reorder(program, io_in_workspace)
    candidates = [Program(program.inputs, program.outputs, (), order) for order in orders(program)]
    assert chosen in candidates
    best = min(peak(candidate, io_in_workspace) for candidate in candidates)
    assert peak(chosen, io_in_workspace) == best
    if peak(program, io_in_workspace) == best:
        assert chosen == program


def branches(count: int, size: int) -> Program:
    """Branches that each blow a tensor up and shrink it, all blown up before any is shrunk."""
    source = tensor("input0", 16, "input")
    wide = [tensor(f"wide{i}", size) for i in range(count)]
    narrow = [tensor(f"narrow{i}", 16) for i in range(count)]
    output = tensor("output0", 16, "output")
    steps = [Step("blow", "blow", (source, t)) for t in wide]
    steps += [Step("shrink", "shrink", pair) for pair in zip(wide, narrow, strict=True)]
    steps.append(Step("join", "join", (*narrow, output)))
    return Program((source,), (output,), (), tuple(steps))


def test_branches_run_one_after_the_other():
    program = branches(4, 1024)
    assert plan_memory(program, share=True).bytes == 4 * 1024 + 16
    assert plan_memory(reorder(program), share=True).bytes == 1024 + 4 * 16
    assert [step.kernel for step in reorder(program).steps] == ["blow", "shrink"] * 4 + ["join"]


def test_order_is_kept_unless_the_whole_peak_shrinks():
    source, output = tensor("input0", 16, "input"), tensor("output0", 16, "output")
    a, b, c = tensor("a", 64), tensor("b", 16), tensor("c", 256)
    scratch = (tensor("scratch1_0", 32),)
    steps = (
        Step("a", "any", (source, a)),
        # Cheaper before the first step, but c dominates.
        Step("b", "any", (source, b), scratch),
        Step("c", "any", (a, b, c)),
        Step("d", "any", (c, output)),
    )
    program = Program((source,), (output,), (), steps)
    assert reorder(program) is program


def test_a_graph_too_wide_to_search_keeps_its_order(monkeypatch):
    monkeypatch.setattr("mcuforge.codegen.memory._MAX_ORDER_STATES", 5)
    program = branches(4, 1024)
    assert reorder(program) is program


# --- plans ---------------------------------------------------------------------------------------


def execute(program: Program, plan: MemoryPlan) -> None:
    """Run the steps on a memory of tags: every operand must be whole when it is read.

    A kernel with distance d writes w bytes before it reads its operand's byte w - d: as late as it
    may. One that needs the same place reads everything first.
    """
    memory: list[object] = [None] * plan.bytes

    def place_of(tensor: Tensor) -> set[int]:
        return {plan.offsets[tensor.name] + i for i in range(tensor.bytes)}

    def write(tensor: Tensor) -> None:
        if tensor.name in plan.offsets:
            for i in range(tensor.bytes):
                memory[plan.offsets[tensor.name] + i] = (tensor.name, i)

    def check(tensor: Tensor, first: int, last: int) -> None:
        for i in range(max(first, 0), min(last, tensor.bytes)):
            assert memory[plan.offsets[tensor.name] + i] == (tensor.name, i)

    for tensor in program.inputs:
        write(tensor)
    for step in program.steps:
        operands = [(p, t) for p, t in enumerate(step.args[:-1]) if t.name in plan.offsets]
        for _, operand in operands:
            check(operand, 0, operand.bytes)
        for scratch in step.scratch:
            write(scratch)
        overlapping, result = plan.overlapping(step), step.result
        if result.name not in plan.offsets:
            assert not overlapping
            continue
        reads = []
        for position, operand in operands:
            shares = bool(place_of(operand) & place_of(result))
            assert (position in overlapping) == shares
            distance = step.inplace.get(position)
            if distance == SAME_PLACE and shares:
                assert plan.offsets[operand.name] == plan.offsets[result.name]
            else:
                late = distance is None or distance == SAME_PLACE
                reads.append((operand, result.bytes if late else distance))
        for written in range(1, result.bytes + 1):
            memory[plan.offsets[result.name] + written - 1] = (result.name, written - 1)
            for operand, distance in reads:
                check(operand, written - distance, written - distance + 1)
        for operand, distance in reads:
            check(operand, result.bytes - distance, operand.bytes)
        for scratch in step.scratch:
            check(scratch, 0, scratch.bytes)
    for tensor in program.outputs:
        if tensor.name in plan.offsets:
            check(tensor, 0, tensor.bytes)


@given(programs(most=8), st.booleans(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_no_step_destroys_what_is_still_read(program, share, io_in_workspace):
    program = reorder(program, io_in_workspace)
    plan = plan_memory(program, share, io_in_workspace)
    execute(program, plan)
    assert plan.bytes >= plan.lower_bound
    planned = {"temporary", "input", "output"} if io_in_workspace else {"temporary"}
    named = [t for step in program.steps for t in (*step.args, *step.scratch)]
    named += program.inputs
    assert set(plan.offsets) == {t.name for t in named if t.kind in planned}
    if not share:
        assert not any(plan.overlapping(step) for step in program.steps)


def chain(sizes: list[int], distance: int, macs: list[int] | None = None) -> Program:
    tensors = [tensor("input0", 16, "input")]
    tensors += [tensor(f"tensor{i}", size) for i, size in enumerate(sizes)]
    tensors.append(tensor("output0", 16, "output"))
    steps = tuple(
        Step(f"kernel{i}", "any", pair, inplace={0: distance}, macs=macs[i] if macs else 0)
        for i, pair in enumerate(itertools.pairwise(tensors))
    )
    return Program((tensors[0],), (tensors[-1],), (), steps)


def test_results_slide_below_their_operands():
    plan = plan_memory(chain([1024, 1024, 1024], 32), share=True)
    assert plan == MemoryPlan({"tensor0": 64, "tensor1": 32, "tensor2": 0}, 1088, 1056)


def test_what_the_same_place_leaves_is_free_again():
    program = chain([1024, 256, 512], SAME_PLACE)
    plan = plan_memory(program, share=True)
    assert plan.offsets == {"tensor0": 0, "tensor1": 0, "tensor2": 256}
    assert plan.bytes == plan.lower_bound == 1024


def test_kernels_overlap_only_where_it_saves_memory():
    # Any one of the three narrow steps might as well not overlap, the wide one must.
    program = chain([1024, 1024, 64, 64], 0, macs=[0, 5, 9, 7, 0])
    plan = plan_memory(program, share=True)
    assert plan.bytes == plan.lower_bound == 1024
    assert [len(plan.overlapping(step)) for step in program.steps] == [0, 2, 2, 0, 0]


def test_a_tensor_read_twice_keeps_both_distances():
    a, b, output = tensor("a", 64), tensor("b", 64), tensor("output0", 16, "output")
    source = tensor("input0", 64, "input")

    def steps(distances):
        return (
            Step("load", "load", (source, a)),
            Step("double", "double", (a, a, b), inplace=distances),
            Step("store", "store", (b, output)),
        )

    sizes = [
        plan_memory(Program((source,), (output,), (), steps(d)), share=True).bytes
        for d in ({0: 0, 1: 0}, {0: 0, 1: 16}, {0: 0}, {0: 0, 1: SAME_PLACE}, {0: 1, 1: SAME_PLACE})
    ]
    assert sizes == [64, 80, 128, 64, 128]


# --- distances -----------------------------------------------------------------------------------


@st.composite
def windows(draw):
    """A window that slides over images, plain or depthwise."""
    axes = []
    for _ in range(2):
        window, stride, dilation = (draw(st.integers(1, most)) for most in (3, 3, 2))
        before, after = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        reach = (window - 1) * dilation + 1
        size = max(draw(st.integers(1, 5)), reach - before - after)
        axes.append(Axis(size, window, stride, dilation, before, after))
    batch, channels = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, channels]))
    return Geometry(batch, *axes, channels, groups * draw(st.integers(1, 3)), groups)


def reads(g: Geometry, pixel: int, output: int) -> set[int]:
    """Bytes of the operand an output element is computed from."""
    _, height, width, channels = g.shape
    _, out_h, out_w, outputs = g.out_shape
    image, oy, ox = pixel // (out_h * out_w), pixel // out_w % out_h, pixel % out_w
    per_group = channels // g.groups
    first = output // (outputs // g.groups) * per_group
    found = set()
    for ky, kx in np.ndindex(g.rows.window, g.columns.window):
        iy = oy * g.rows.stride + ky * g.rows.dilation - g.rows.before
        ix = ox * g.columns.stride + kx * g.columns.dilation - g.columns.before
        if 0 <= iy < height and 0 <= ix < width:
            start = ((image * height + iy) * width + ix) * channels + first
            found |= set(range(start, start + per_group))
    return found


def is_safe(steps: list[tuple[str, set[int]]], distance: int) -> bool:
    """Whether no byte is read that was overwritten, for a result this far below the operand."""
    written: set[int] = set()
    for action, at in steps:
        if action == "write":
            written |= {byte - distance for byte in at}
        elif at & written:
            return False
    return True


@given(windows(), st.integers(1, 4))
@settings(max_examples=80, deadline=None)
def test_distance_of_kernels_by_element_is_the_smallest_safe_one(g, count):
    count = math.gcd(count, g.outputs)
    steps = []
    for first in range(0, math.prod(g.out_shape), count):
        elements = range(first, first + count)
        at = (reads(g, e // g.outputs, e % g.outputs) for e in elements)
        steps += [("read", set().union(*at)), ("write", set(elements))]
    distance = inplace.by_element(g, count)
    beyond = math.prod(g.out_shape)
    assert all(is_safe(steps, d) for d in range(distance, max(distance, beyond) + 1))
    # One byte less is safe only where a write then merely jumps over what is still read.
    assert distance == 0 or not monotone_safe(steps, distance - 1)


def monotone_safe(steps: list[tuple[str, set[int]]], distance: int) -> bool:
    """Whether all reads stay ahead of all writes before them."""
    end = -1
    for action, at in steps:
        if action == "write":
            end = max(end, max(at) - distance)
        elif at and min(at) <= end:
            return False
    return True


@given(windows(), st.integers(1, 4), st.booleans())
@settings(max_examples=80, deadline=None)
def test_distance_of_kernels_by_group_of_pixels_is_safe(g, count, reads_first):
    g = replace(g, groups=1)
    outputs, pixels = g.outputs, g.batch * g.pixels
    count = min(count, pixels)
    starts = inplace.group_starts(pixels, count)
    assert {s + i for s in starts for i in range(count)} == set(range(pixels))
    steps = []
    for start in starts:
        group = range(start, start + count)
        read = ("read", set().union(*(reads(g, p, 0) for p in group)))
        write = ("write", set(range(start * outputs, (start + count) * outputs)))
        steps += [read, write] if reads_first else [write, read]
    distance = inplace.by_pixels(g, starts, count, reads_first)
    assert all(is_safe(steps, d) for d in range(distance, max(distance, pixels * outputs) + 1))
    assert distance == 0 or not monotone_safe(steps, distance - 1)


def test_distances_of_common_layers():
    def layer(window: int, pad: int, groups: int) -> Geometry:
        axis = Axis(10, window, before=pad, after=pad)
        return Geometry(1, axis, axis, 8, 8, groups)

    # A depthwise 3x3 keeps a row, a pixel and no more.
    assert inplace.by_element(layer(3, 1, groups=8)) == 11 * 8
    # A pointwise convolution keeps the pixel it reads; none if it is copied first.
    pointwise = layer(1, 0, groups=1)
    assert inplace.by_element(pointwise) == 7
    assert inplace.by_pixels(pointwise, inplace.group_starts(100, 2), 2) == 0
    assert inplace.by_pixels(pointwise, inplace.group_starts(100, 2), 2, reads_first=False) == 16


# --- compiled models -----------------------------------------------------------------------------


def build(path: Path, directory: Path, **options) -> HostModel:
    """Compile a model at level 2, and that for the host."""
    directory.mkdir()
    compiler.compile_model(path, "model", TARGET, 2, directory / "model.tar", **options)
    return HostModel(directory / "model.tar", directory)


def test_inputs_and_outputs_inside_the_workspace(tmp_path):
    path = tmp_path / "tiny.tflite"
    path.write_bytes(tiny.model())
    inputs = np.random.default_rng(1).integers(0, 256, (3, 64), np.uint8)
    outside = build(path, tmp_path / "outside")
    inside = build(path, tmp_path / "inside", io_in_workspace=True)
    assert not outside.info.io_in_workspace and inside.info.io_in_workspace
    expected = outside.run(inputs)
    # Buffers of the caller still serve.
    np.testing.assert_array_equal(inside.run(inputs), expected)
    library = ctypes.CDLL(str(tmp_path / "inside" / "model.so"))
    library.tvmgen_model_workspace.restype = ctypes.c_void_p
    size = inside.info.workspace_bytes
    start = library.tvmgen_model_workspace()
    workspace = np.frombuffer((ctypes.c_uint8 * size).from_address(start), np.uint8)
    at, to = (ports[0].workspace_offset for ports in (inside.info.inputs, inside.info.outputs))
    header = (tmp_path / "inside/codegen/host/include/tvmgen_model.h").read_text()
    offsets = re.findall(r"#define TVMGEN_MODEL_\w+_OFFSET (\d+)", header)
    assert [int(offset) for offset in offsets] == [at, to]
    assert outside.info.inputs[0].workspace_offset is None
    assert (
        "_workspace(" not in (tmp_path / "outside/codegen/host/include/tvmgen_model.h").read_text()
    )
    nowhere = (ctypes.c_void_p * 1)(None)
    there = [(ctypes.c_void_p * 1)(start + offset) for offset in (at, to)]
    for arguments in ((None, None), (nowhere, nowhere), there):
        for row, result in zip(inputs, expected, strict=True):
            workspace[at : at + row.size] = row
            assert library.tvmgen_model_run(*arguments) == 0
            np.testing.assert_array_equal(workspace[to : to + result.size], result)


@pytest.mark.skipif(not MODELS.is_dir(), reason="no ../shared/data/models")
@pytest.mark.parametrize("name", ARENAS)
def test_overwriting_operands_changes_no_result(name, tmp_path, monkeypatch):
    path = MODELS / f"{name}.tflite"
    data = path.read_bytes()
    module = passes.optimize(importer.from_tflite(data), TARGET, 2)
    description = describe.describe(data, name)
    inputs = vectors.random_inputs(description, 3)
    monkeypatch.setattr(importer, "from_tflite", lambda _: None)
    monkeypatch.setattr(passes, "optimize", lambda *_: module)
    with monkeypatch.context() as unshared:
        unshared.setattr(
            generate, "plan_memory", lambda program, _, io: plan_memory(program, False, io)
        )
        separate = build(path, tmp_path / "separate")
    models = [
        separate,
        build(path, tmp_path / "shared"),
        build(path, tmp_path / "inside", io_in_workspace=True),
    ]
    results = [model.run(inputs) for model in models]
    np.testing.assert_array_equal(results[1], results[0])
    np.testing.assert_array_equal(results[2], results[0])
    assert models[1].info.workspace_bytes < separate.info.workspace_bytes
    for model in models[1:]:
        bound, size = (model.info.workspace_lower_bound_bytes, model.info.workspace_bytes)
        assert bound <= size <= 0.85 * ARENAS[name]
