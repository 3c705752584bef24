"""One static workspace: where each temporary tensor lives.

Offsets come from the tensors' live ranges. Packing them optimally is dynamic storage allocation,
which is NP-hard; largest-first placement at the lowest free offset (as in TFLite's
GreedyMemoryPlanner and Pisarchyk & Lee, "Efficient Memory Management for Deep Neural Net Inference",
2020) reaches the lower bound on most networks. The plan reports both numbers.
"""

from dataclasses import dataclass

from mcuforge.codegen.program import Program, Step, Tensor

ALIGNMENT = 16


@dataclass(frozen=True)
class MemoryPlan:
    """Byte offsets of the temporaries in the workspace.

    Attributes:
        offsets: by tensor name.
        bytes: size of the workspace.
        lower_bound: largest sum of simultaneously live tensors, which no plan can beat.
    """

    offsets: dict[str, int]
    bytes: int
    lower_bound: int

    def overlaps(self, step: Step) -> bool:
        """Whether the result of a step shares memory with one of its operands."""
        *operands, result = (
            (self.offsets[t.name], self.offsets[t.name] + t.bytes)
            if t.name in self.offsets
            else None
            for t in step.args
        )
        return result is not None and any(
            o is not None and o[0] < result[1] and result[0] < o[1] for o in operands
        )


@dataclass
class _Block:
    """Tensors that share one place, and when it is taken (first to last step, inclusive)."""

    names: list[str]
    size: int
    first: int
    last: int


def plan_memory(program: Program, share: bool) -> MemoryPlan:
    """Place the temporaries of a program.

    Args:
        program: the steps in execution order.
        share: let tensors with disjoint lives share memory and results overwrite their dying
            operands; otherwise every tensor has a place of its own.
    """
    if not share:
        blocks = [_Block([t.name], _aligned(t.bytes), 0, 0) for t in _temporaries(program)]
    else:
        blocks = _live_blocks(program)
    return _pack(blocks)


def _temporaries(program: Program) -> list[Tensor]:
    seen: dict[str, Tensor] = {}
    for step in program.steps:
        for tensor in (*step.args, *step.scratch):
            if tensor.kind == "temporary":
                seen.setdefault(tensor.name, tensor)
    return list(seen.values())


def _live_blocks(program: Program) -> list[_Block]:
    """Live ranges, results placed over operands that die in their step where the kernel allows."""
    last_use: dict[str, int] = {}
    for index, step in enumerate(program.steps):
        for tensor in (*step.args, *step.scratch):
            last_use[tensor.name] = index
    blocks: dict[str, _Block] = {}
    for index, step in enumerate(program.steps):
        shared = None
        for position, allowed in sorted(step.inplace.items()):
            source = step.args[position]
            if (
                allowed == 0
                and source.kind == step.result.kind == "temporary"
                and last_use[source.name] == index
                and source.bytes >= step.result.bytes
            ):
                shared = blocks[source.name]
                break
        for tensor in (*step.args, *step.scratch):
            if tensor.kind != "temporary" or tensor.name in blocks:
                continue
            if tensor is step.result and shared is not None:
                shared.names.append(tensor.name)
                shared.last = last_use[tensor.name]
                blocks[tensor.name] = shared
            else:
                blocks[tensor.name] = _Block(
                    [tensor.name], _aligned(tensor.bytes), index, last_use[tensor.name]
                )
    return list({id(block): block for block in blocks.values()}.values())


def _pack(blocks: list[_Block]) -> MemoryPlan:
    offsets: dict[str, int] = {}
    placed: list[tuple[int, _Block]] = []
    for block in sorted(blocks, key=lambda b: (-b.size, b.first, b.names)):
        neighbours = sorted(
            (offset, offset + other.size)
            for offset, other in placed
            if other.first <= block.last and block.first <= other.last
        )
        position = 0
        for start, end in neighbours:
            if position + block.size <= start:
                break
            position = max(position, end)
        placed.append((position, block))
        offsets.update(dict.fromkeys(block.names, position))
    steps = range(max((block.last for block in blocks), default=-1) + 1)
    return MemoryPlan(
        offsets={name: offsets[name] for name in sorted(offsets)},
        bytes=max((offset + block.size for offset, block in placed), default=0),
        lower_bound=max(
            (sum(b.size for b in blocks if b.first <= step <= b.last) for step in steps), default=0
        ),
    )


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
