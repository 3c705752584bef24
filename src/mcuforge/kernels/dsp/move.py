"""Moving elements with the DSP extension's cores: runs of bytes, by blocks of eight words."""

from tvm.tirx.script import builder as T

from mcuforge.isa.dsp.move import FARTHEST, VECTOR, WIDEST, Rows, copy_rows, fill_rows
from mcuforge.operators.move import FILL, Moves, Piece, Runs, copy, run, runs
from mcuforge.tir.function import address
from mcuforge.tir.registry import Kernel, Operation, kernel

# Shorter runs are moved by what compilers make of memcpy. Instructions an inference, emulated
# Cortex-M7, gcc 12 and clang 19, -O3, for a slice of 16x16x8: 2 channels take 1,171 and 1,170 with
# the blocks, 1,039 and 626 with memcpy; 3 channels 1,171 and 1,170, 2,062 and 1,154; 4 channels 662
# and 661, 1,039 and 626. On a Cortex-M55 memcpy takes less for 4 channels: 281 and 575, the blocks
# 661 and 660.
_LEAST_BYTES = 4


@kernel("move", opt_level=3, needs={"dsp"}, unless={"helium"})
def _move(operation: Operation) -> Kernel:
    return by_blocks(operation, vectors=False)


def by_blocks(operation: Operation, vectors: bool) -> Kernel:
    """The kernel that moves all runs by blocks, which may use Helium's vectors."""
    moves = Moves(operation)
    for piece in moves.pieces:
        _copy(moves, piece, vectors)
    return moves.done()


def _copy(moves: Moves, piece: Piece, vectors: bool) -> None:
    f = moves.function
    found, rows = _suitable(piece, moves.itemsize, vectors)
    if found is None or rows is None:
        copy(moves, piece)
        return
    with moves.places(piece, found.dims) as (source, result):
        to, count = address(moves.result, result), T.int32(found.count)
        if piece.operand == FILL:
            f.do(fill_rows(rows)(to, T.int32(_word(moves)), count))
        else:
            f.do(copy_rows(rows)(to, address(moves.operands[piece.operand], source), count))


def _suitable(piece: Piece, size: int, vectors: bool) -> tuple[Runs | None, Rows | None]:
    """As many runs as a block can move in one call, or one."""
    for found in (runs(piece), run(piece)):
        rows = None if found is None or size > 4 else _rows(found, size, vectors)
        if rows is not None:
            return found, rows
    return None, None


def _rows(found: Runs, size: int, vectors: bool) -> Rows | None:
    """What a block moves in one call, or None: the runs are too short, or too far apart."""
    length = found.length * size
    steps = [found.source * size, found.result * size, found.again * size]
    if length < _LEAST_BYTES or length // 32 > 0xFFFF:
        return None
    if min(steps) < 0 or max(steps) > FARTHEST or found.times > 2:
        return None
    if found.times == 2 and (length > WIDEST or steps[2] + WIDEST > FARTHEST):
        return None
    unroll = 1
    while found.count % (2 * unroll) == 0 and 2 * unroll * length <= WIDEST:
        unroll *= 2
    return Rows(length, *steps, min(unroll, 4), vectors and length >= VECTOR)


def _word(moves: Moves) -> int:
    """What is filled with, over and over, as a word."""
    return int.from_bytes(moves.pattern * (4 // moves.itemsize), "little", signed=True)
