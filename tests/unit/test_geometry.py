"""Sliding windows, against an enumeration of every tap."""

from hypothesis import given
from hypothesis import strategies as st

from mcuforge.tir.geometry import NOWHERE, Axis, Geometry


@st.composite
def axes(draw) -> Axis:
    window, stride, dilation = (draw(st.integers(1, most)) for most in (4, 3, 3))
    before, after = draw(st.integers(0, 5)), draw(st.integers(0, 5))
    least = (window - 1) * dilation + 1 - before - after
    return Axis(max(draw(st.integers(1, 8)), least), window, stride, dilation, before, after)


def taps(axis: Axis) -> list[list[int]]:
    """Positions of each window's taps, as many windows as fit."""
    found, start = [], -axis.before
    while start + (axis.window - 1) * axis.dilation < axis.size + axis.after:
        found.append([start + tap * axis.dilation for tap in range(axis.window)])
        start += axis.stride
    return found


@given(axes())
def test_an_axis_knows_its_taps(axis: Axis) -> None:
    windows = taps(axis)
    inside = [[t for t in window if 0 <= t < axis.size] for window in windows]
    assert axis.out == len(windows)
    assert axis.starts().tolist() == [window[0] for window in windows]
    assert axis.reach == windows[0][-1] - windows[0][0] + 1
    assert axis.span == windows[-1][-1] - windows[0][0] + 1
    assert axis.first_inside().tolist() == [min(w, default=NOWHERE) for w in inside]
    assert axis.taps_inside() == sum(map(len, inside))
    border = [[t + axis.before for t in window] for window in windows]
    assert (taps(axis.with_border()), axis.with_border().padded) == (border, False)


@given(axes(), axes(), st.integers(1, 3))
def test_first_pixels_are_those_of_rows_and_columns(rows: Axis, columns: Axis, batch: int) -> None:
    g = Geometry(batch, rows, columns, 2, 3)
    found = g.first_pixels()
    assert found.shape == g.out_shape[:3]
    for image in range(batch):
        for oy, row in enumerate(rows.first_inside().tolist()):
            for ox, column in enumerate(columns.first_inside().tolist()):
                nowhere = NOWHERE in (row, column)
                pixel = (image * rows.size + row) * columns.size + column
                assert found[image, oy, ox] == (NOWHERE if nowhere else pixel)


def test_operators_have_a_geometry() -> None:
    attrs = {"strides": (2, 1), "padding": (0, 1, 2, 3), "dilation": (1, 2)}
    rows, columns = Axis(9, 3, 2, 1, 0, 2), Axis(7, 2, 1, 2, 1, 3)
    image = (1, 9, 7, 4)
    conv2d = Geometry.of([image, (6, 3, 2, 2)], {**attrs, "groups": 2})
    assert conv2d == Geometry(1, rows, columns, 4, 6, 2)
    assert (conv2d.shape, conv2d.out_shape) == (image, (1, 5, 9, 6))
    assert Geometry.of([image, (3, 2, 8)], attrs) == Geometry(1, rows, columns, 4, 8, 4)
    assert Geometry.of([image], {**attrs, "pool_size": (3, 2)}) == Geometry(
        1, rows, columns, 4, 4, 4
    )
    assert conv2d.padded and conv2d.dilated and not conv2d.pointwise
    assert (conv2d.taps, conv2d.pixels) == (6, 45)
    assert conv2d.transposed().out_shape == (1, 9, 5, 6)
    assert conv2d.with_border().shape == (1, 11, 11, 4)
    assert Geometry(1, Axis(4), Axis(5), 2, 3).pointwise
