"""One static workspace: in which order steps run, and where each tensor lives meanwhile.

Steps are ordered so that the largest set of simultaneously live tensors is as small as the graph
allows. Placing tensors is then dynamic storage allocation, which is NP-hard; networks are small
enough to search it nearly always to the end. Greedy placements (largest first, as in TFLite's
GreedyMemoryPlanner and Pisarchyk & Lee, "Efficient Memory Management for Deep Neural Net
Inference", 2020, and by time) start the search. A branch and bound over the disjunctive graph, as
in job shop scheduling (Balas, 1969), improves on them or proves that nothing can: of two tensors
with overlapping lives one lies below the other, and which one is what the branches decide.

A result may lie over an operand that dies in its step, if it starts far enough below it
(``registry.Kernel.inplace``). In the graph this only shortens how far the operand must lie above
the result: from the result's size to the kernel's distance. Where only the very same place will
do, both are placed as one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mcuforge.codegen.program import Program, Step, Tensor
from mcuforge.tir.registry import SAME_PLACE

ALIGNMENT = 16

# Bounds of the searches; the plan is as good as what was found until then.
_MAX_ORDER_STATES = 20_000
# Nodes of the search tree, times pairs of blocks.
_MAX_PLACEMENT_WORK = 8_000_000
_MAX_RETRY_WORK = 200_000

_NO_CONFLICT = -1
_UNRELATED = np.iinfo(np.int64).min // 4
_UNLIMITED = np.iinfo(np.int64).max


@dataclass(frozen=True)
class MemoryPlan:
    """Byte offsets in the workspace.

    Attributes:
        offsets: by tensor name.
        bytes: size of the workspace.
        lower_bound: the most bytes that are live at any time, results over dying operands counted
            once; no plan for this order of steps needs less.
    """

    offsets: dict[str, int]
    bytes: int
    lower_bound: int

    def overlapping(self, step: Step) -> frozenset[int]:
        """Positions of the arguments of a step that share memory, its result among them."""
        result = self._extent(step.result)
        shared = frozenset(
            position
            for position, tensor in enumerate(step.args[:-1])
            if (extent := self._extent(tensor)) and result
            if extent[0] < result[1] and result[0] < extent[1]
        )
        return shared | {len(step.args) - 1} if shared else shared

    def _extent(self, tensor: Tensor) -> tuple[int, int] | None:
        if tensor.name not in self.offsets:
            return None
        return self.offsets[tensor.name], self.offsets[tensor.name] + tensor.bytes


@dataclass(frozen=True)
class Block:
    """Memory a tensor takes.

    Attributes:
        name: the tensor's.
        bytes: its size.
        first, last: when it is live, inclusive.
    """

    name: str
    bytes: int
    first: int
    last: int


# For (result, operand) that may overlap: how many bytes below the operand the result must start, or
# SAME_PLACE if they must start at the same byte.
Overlaps = Mapping[tuple[str, str], int]


def reorder(program: Program, io_in_workspace: bool = False) -> Program:
    """The program with its steps in an order that needs the least live memory.

    Searches all orders that the dependencies allow, by dynamic programming over the sets of steps
    that can have run. The model's order is kept where nothing is better, or where the graph is so
    wide that the sets are too many.

    Args:
        program: steps in the model's order.
        io_in_workspace: whether inputs and outputs are part of that memory.
    """
    steps = program.steps
    graph = _Graph(program, io_in_workspace)
    executed, live, limit = 0, graph.entry_bytes, 0
    for index in range(len(steps)):
        during, live = graph.run(index, executed, live)
        limit = max(limit, during)
        executed |= 1 << index
    # By set of executed steps, all of one size: peak so far, bytes live now, the order.
    states: dict[int, tuple[int, int, tuple[int, ...]]] = {0: (0, graph.entry_bytes, ())}
    visited = 0
    for _ in steps:
        following: dict[int, tuple[int, int, tuple[int, ...]]] = {}
        for executed, (peak, live, order) in states.items():
            for index in graph.ready(executed):
                during, left = graph.run(index, executed, live)
                state = (max(peak, during), left, (*order, index))
                mask = executed | 1 << index
                if state[0] < limit and (mask not in following or state < following[mask]):
                    following[mask] = state
        states = following
        visited += len(states)
        if visited > _MAX_ORDER_STATES or not states:
            return program
    ((_, _, order),) = states.values()
    return replace(program, steps=tuple(steps[index] for index in order))


def plan_memory(program: Program, share: bool, io_in_workspace: bool = False) -> MemoryPlan:
    """Place tensors in the workspace.

    Args:
        program: the steps in execution order.
        share: let tensors with disjoint lives share memory and results overwrite their dying
            operands; otherwise every tensor has a place of its own.
        io_in_workspace: place inputs and outputs as well. All inputs are live when the program
            starts and may be overwritten after their last use, all outputs when it ends.
    """
    overlaps: Overlaps = {}
    if share:
        blocks, overlaps = lives(program, io_in_workspace)
    else:
        tensors = _Graph(program, io_in_workspace).tensors
        blocks = [Block(name, tensor.bytes, 0, 0) for name, tensor in tensors.items()]
    bound = lower_bound(blocks, overlaps)
    offsets = place(blocks, overlaps)
    # ``place`` takes SAME_PLACE for an obligation: two tensors may do better apart.
    for pair in [pair for pair, distance in overlaps.items() if distance == SAME_PLACE]:
        if _end(blocks, offsets) > bound:
            fewer = _without(overlaps, pair)
            apart = place(blocks, fewer, work=_MAX_RETRY_WORK)
            if _end(blocks, apart) < _end(blocks, offsets):
                offsets, overlaps = apart, fewer
    size = _end(blocks, offsets)
    # A kernel whose result overlaps nothing is faster C (``restrict``): overlap only where it
    # saves memory, the most expensive kernels last.
    macs = {step.result.name: step.macs or 0 for step in program.steps}
    for pair in sorted(overlaps, key=lambda pair: (-macs[pair[0]], pair)):
        fewer = _without(overlaps, pair)
        if is_valid(blocks, fewer, offsets):
            overlaps = fewer
        elif lower_bound(blocks, fewer) <= size:
            apart = place(blocks, fewer, limit=size, work=_MAX_RETRY_WORK)
            if _end(blocks, apart) <= size:
                offsets, overlaps = apart, fewer
    return MemoryPlan({name: offsets[name] for name in sorted(offsets)}, size, bound)


def is_valid(blocks: Sequence[Block], overlaps: Overlaps, offsets: Mapping[str, int]) -> bool:
    """Whether no two blocks that are live at the same time overlap more than they may."""
    used = {
        (result, operand): distance
        for (result, operand), distance in overlaps.items()
        if distance != SAME_PLACE or offsets[result] == offsets[operand]
    }
    gaps = _gaps(blocks, used)
    start = np.array([offsets[block.name] for block in blocks], np.int64)
    above = start - start[:, None] >= gaps
    return bool(((gaps == _NO_CONFLICT) | above | above.T).all())


def lives(
    program: Program, io_in_workspace: bool
) -> tuple[list[Block], dict[tuple[str, str], int]]:
    """When each tensor of the workspace is live, and which may overlap.

    Time 0 is when the program is entered; step i runs at time i + 1; then it is left.
    """
    graph = _Graph(program, io_in_workspace)
    end = len(program.steps) + 1
    first = {tensor.name: 0 for tensor in program.inputs}
    last = dict(first)
    for time, step in enumerate(program.steps, 1):
        for tensor in (*step.args, *step.scratch):
            first.setdefault(tensor.name, time)
            last[tensor.name] = time
    last.update({tensor.name: end for tensor in program.outputs})
    blocks = [
        Block(name, tensor.bytes, first[name], last[name]) for name, tensor in graph.tensors.items()
    ]
    overlaps = {}
    for time, step in enumerate(program.steps, 1):
        distances = {o: d for o, d in graph.distances[time - 1].items() if last[o] == time}
        same = next((o for o, d in distances.items() if d == SAME_PLACE), None)
        if same is not None:
            distances = {same: SAME_PLACE}
        overlaps.update(
            {(step.result.name, o): d for o, d in distances.items() if d < step.result.bytes}
        )
    return blocks, overlaps


def lower_bound(blocks: Sequence[Block], overlaps: Overlaps) -> int:
    """Bytes no placement can do without: the largest need of any one time.

    All but the topmost tensor take their size rounded up to the alignment, and a result over its
    dying operand takes what it covers only once.
    """
    size = {block.name: block.bytes for block in blocks}
    dying: dict[str, list[tuple[int, int]]] = {}
    for (result, operand), distance in overlaps.items():
        dying.setdefault(result, []).append((size[operand], distance))
    # In arrays, as this runs once for every pair that may overlap.
    saved = np.array([_saving(b.bytes, dying.get(b.name, [])) for b in blocks], np.int64)
    sizes = np.array([_aligned(block.bytes) for block in blocks], np.int64)
    padding = sizes - np.array([block.bytes for block in blocks], np.int64)
    first, last = (np.array([getattr(b, end) for b in blocks]) for end in ("first", "last"))
    times = np.unique(first)[:, None]
    live = (first <= times) & (times <= last)
    need = live @ sizes - (first == times) @ saved - (live * padding).max(axis=1, initial=0)
    return int(need.max(initial=0))


def place(
    blocks: Sequence[Block],
    overlaps: Overlaps,
    limit: int | None = None,
    work: int = _MAX_PLACEMENT_WORK,
) -> dict[str, int]:
    """Offsets by name that need as few bytes as the search finds.

    Args:
        blocks: what to place.
        overlaps: which may overlap.
        limit: take the first placement within so many bytes; there need not be one.
        work: bounds the search: nodes of the tree to visit, times pairs of blocks.
    """
    if not blocks:
        return {}
    bound = lower_bound(blocks, overlaps)
    target = bound if limit is None else max(limit, bound)
    groups = _groups(blocks, overlaps)
    members = [i for group in groups for i in group]
    starts = np.cumsum([0, *map(len, groups[:-1])])
    gaps = _gaps(blocks, overlaps)[np.ix_(members, members)]
    for axis in (0, 1):
        gaps = np.maximum.reduceat(gaps, starts, axis)
    sizes = np.array([max(blocks[i].bytes for i in group) for group in groups], np.int64)
    search = _Placement(sizes, gaps)
    for order in _greedy_orders([blocks[group[0]] for group in groups]):
        search.try_order(order)
    search.improve(target, work // len(groups) ** 2)
    return {
        blocks[i].name: int(offset)
        for group, offset in zip(groups, search.offsets, strict=True)
        for i in group
    }


class _Graph:
    """What limits the order of steps, and how much memory an order needs."""

    def __init__(self, program: Program, io_in_workspace: bool) -> None:
        kinds = {"temporary", "input", "output"} if io_in_workspace else {"temporary"}
        steps = program.steps
        named = [*program.inputs, *program.outputs]
        named += [tensor for step in steps for tensor in (*step.args, *step.scratch)]
        self.tensors = {tensor.name: tensor for tensor in named if tensor.kind in kinds}
        self.distances = [self._distances(step) for step in steps]
        producer = {step.result.name: index for index, step in enumerate(steps)}
        self._needs = [
            sum({1 << producer[t.name] for t in step.args[:-1] if t.name in producer})
            for step in steps
        ]
        self._users = dict.fromkeys(self.tensors, 0)
        for index, step in enumerate(steps):
            for name in {tensor.name for tensor in step.args[:-1]} & self.tensors.keys():
                self._users[name] |= 1 << index
        for tensor in program.outputs:
            # Whoever called the program uses them after all steps.
            self._users[tensor.name] = 1 << len(steps)
        self._size = {name: _aligned(tensor.bytes) for name, tensor in self.tensors.items()}
        self._steps = steps
        self.entry_bytes = sum(
            self._size[t.name] for t in program.inputs if self._users.get(t.name)
        )

    def _distances(self, step: Step) -> dict[str, int]:
        """By operand the result may overlap: at which distance."""
        if step.result.name not in self.tensors:
            return {}
        positions: dict[str, list[int]] = {}
        for position, tensor in enumerate(step.args[:-1]):
            positions.setdefault(tensor.name, []).append(position)
        allowed = {}
        for name, used in positions.items():
            if name in self.tensors and all(position in step.inplace for position in used):
                distances = {step.inplace[position] for position in used}
                if SAME_PLACE not in distances:
                    allowed[name] = max(distances)
                elif max(distances) <= 0 and step.result.bytes <= self.tensors[name].bytes:
                    allowed[name] = SAME_PLACE
        return allowed

    def ready(self, executed: int) -> Iterable[int]:
        """Steps that can run next."""
        for index, needs in enumerate(self._needs):
            if not executed >> index & 1 and needs & ~executed == 0:
                yield index

    def run(self, index: int, executed: int, live: int) -> tuple[int, int]:
        """Bytes live during and after a step.

        Args:
            index: the step.
            executed: set of the steps before it, as bits.
            live: bytes live before it.
        """
        step, rest = self._steps[index], ~(executed | 1 << index)
        result = step.result.name
        dying = [
            name
            for name in dict.fromkeys(tensor.name for tensor in step.args[:-1])
            if name in self.tensors and self._users[name] & rest == 0
        ]
        size = self._size.get(result, 0)
        during = live + size + sum(self._size[tensor.name] for tensor in step.scratch)
        distances = self.distances[index]
        during -= _saving(size, [(self._size[n], distances[n]) for n in dying if n in distances])
        after = live - sum(self._size[name] for name in dying)
        return during, after + (size if self._users.get(result) else 0)


class _Placement:
    """The best placement found so far, and the searches for better ones.

    ``sizes[i]`` are in bytes. ``gaps[i, j]`` is how far j must start above i if i lies below j, or
    ``_NO_CONFLICT``.
    """

    def __init__(self, sizes: np.ndarray, gaps: np.ndarray) -> None:
        self._sizes = sizes
        self._gaps = gaps
        # For each block: another, how far that must lie above it, and it above that.
        self._neighbours = [
            [(int(j), int(gaps[i, j]), int(gaps[j, i])) for j in np.flatnonzero(row)]
            for i, row in enumerate(gaps != _NO_CONFLICT)
        ]
        self.offsets = np.zeros_like(self._sizes)
        self.bytes = int(_UNLIMITED)

    def try_order(self, order: Iterable[int]) -> None:
        """Place each block as low as those before it allow."""
        offsets: dict[int, int] = {}
        for block in order:
            # Where it would lie neither far enough below a placed block nor above it.
            taken = sorted(
                (offsets[other] - below, offsets[other] + above)
                for other, below, above in self._neighbours[block]
                if other in offsets
            )
            lowest = 0
            for start, end in taken:
                if lowest <= start:
                    break
                lowest = max(lowest, end)
            offsets[block] = lowest
        self._keep(np.array([offsets[i] for i in range(len(offsets))], np.int64))

    def improve(self, target: int, nodes: int) -> None:
        """Branch and bound, depth first, until a placement needs no more than ``target`` bytes."""
        # below[i, j]: the gap where i is decided to lie below j. undecided: symmetric.
        stack = [(np.full_like(self._gaps, _UNRELATED), self._gaps != _NO_CONFLICT)]
        for _ in range(nodes):
            if not stack or self.bytes <= target:
                return
            below, undecided = stack.pop()
            extremes = self._decide(below, undecided)
            if extremes is None:
                continue
            offsets, tails = extremes
            self.try_order(np.argsort(offsets, kind="stable"))
            too_low = offsets[:, None] + self._gaps > offsets
            violated = undecided & too_low & too_low.T
            if not violated.any():
                self._keep(offsets)
                continue
            # The pair that hurts most whichever way it is decided.
            cost = offsets[:, None] + self._gaps + tails
            pair = np.where(violated, np.minimum(cost, cost.T), -1)
            low, high = np.unravel_index(np.argmax(pair), pair.shape)
            if cost[low, high] > cost[high, low]:
                low, high = high, low
            undecided[low, high] = undecided[high, low] = False
            for i, j in ((high, low), (low, high)):
                branch = below.copy()
                branch[i, j] = self._gaps[i, j]
                stack.append((branch, undecided.copy()))

    def _decide(
        self, below: np.ndarray, undecided: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Decide, in place, the pairs that have one way left to beat the best placement.

        Returns:
            The lowest offset of each block, and the least distance from there to the top; None if
            nothing better is left.
        """
        limit = self.bytes - 1
        offsets, tails = np.zeros_like(self._sizes), self._sizes
        while True:
            higher, deeper = _longest_paths(offsets, below), _longest_paths(tails, below.T)
            if higher is None or deeper is None or (higher + deeper).max() > limit:
                return None
            offsets, tails = higher, deeper
            possible = undecided & (offsets[:, None] + self._gaps + tails <= limit)
            if (undecided & ~possible & ~possible.T).any():
                return None
            forced = possible & ~possible.T
            if not forced.any():
                return offsets, tails
            below[forced] = self._gaps[forced]
            undecided &= ~(forced | forced.T)

    def _keep(self, offsets: np.ndarray) -> None:
        size = int((offsets + self._sizes).max(initial=0))
        if size < self.bytes:
            self.offsets, self.bytes = offsets, size


def _longest_paths(distances: np.ndarray, arcs: np.ndarray) -> np.ndarray | None:
    """Lengthen distances along arcs[i, j] from i to j; None if there is a cycle."""
    for _ in range(len(distances) + 1):
        longer = np.maximum(distances, (distances[:, None] + arcs).max(axis=0))
        if (longer == distances).all():
            return distances
        distances = longer
    return None


def _greedy_orders(blocks: Sequence[Block]) -> list[list[int]]:
    """Orders in which to place blocks, as tried first."""
    indices = range(len(blocks))
    return [
        sorted(indices, key=lambda i: (-blocks[i].bytes, blocks[i].first)),
        # Results below operands, as overlaps want them.
        sorted(indices, key=lambda i: (-blocks[i].first, -blocks[i].bytes)),
        sorted(indices, key=lambda i: (blocks[i].first, -blocks[i].bytes)),
    ]


def _groups(blocks: Sequence[Block], overlaps: Overlaps) -> list[list[int]]:
    """Indices of blocks that start at the same byte, the oldest of each group first."""
    operand_of = {r: o for (r, o), distance in overlaps.items() if distance == SAME_PLACE}
    groups: dict[str, list[int]] = {}
    for index in sorted(range(len(blocks)), key=lambda i: blocks[i].first):
        oldest = blocks[index].name
        while oldest in operand_of:
            oldest = operand_of[oldest]
        groups.setdefault(oldest, []).append(index)
    return list(groups.values())


def _gaps(blocks: Sequence[Block], overlaps: Overlaps) -> np.ndarray:
    """How far block j must start above block i if i lies below j, or ``_NO_CONFLICT``."""
    first, last = (np.array([getattr(b, end) for b in blocks]) for end in ("first", "last"))
    sizes = np.array([_aligned(block.bytes) for block in blocks], np.int64)
    conflicts = (first[:, None] <= last) & (first <= last[:, None])
    np.fill_diagonal(conflicts, False)
    gaps = np.where(conflicts, sizes[:, None], _NO_CONFLICT)
    index = {block.name: i for i, block in enumerate(blocks)}
    for (result, operand), distance in overlaps.items():
        i, j = index[result], index[operand]
        if distance == SAME_PLACE:
            gaps[i, j] = gaps[j, i] = _NO_CONFLICT
        else:
            gaps[i, j] = min(_aligned(distance), gaps[i, j])
    return gaps


def _without(overlaps: Overlaps, pair: tuple[str, str]) -> Overlaps:
    return {other: distance for other, distance in overlaps.items() if other != pair}


def _end(blocks: Sequence[Block], offsets: Mapping[str, int]) -> int:
    return max((offsets[block.name] + block.bytes for block in blocks), default=0)


def _saving(result: int, operands: Sequence[tuple[int, int]]) -> int:
    """At most how many bytes a result can share with operands, given their sizes and distances."""
    if not operands:
        return 0
    shared = _aligned(result) - min(max(_aligned(distance), 0) for _, distance in operands)
    return max(0, min(shared, sum(_aligned(size) for size, _ in operands)))


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
