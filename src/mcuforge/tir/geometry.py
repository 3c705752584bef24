"""How the window of a convolution or a pooling slides over an image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

NOWHERE = np.iinfo(np.int64).max
"""Index of a position that does not exist: behind all that do."""


@dataclass(frozen=True)
class Axis:
    """One direction of an image. A window of 3 with dilation 2 has taps at positions 0, 2 and 4.

    Attributes:
        size: positions of the input.
        window: taps of the window.
        stride: positions from one window to the next one.
        dilation: positions from one tap to the next one.
        before, after: positions of padding.
    """

    size: int
    window: int = 1
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0

    @property
    def reach(self) -> int:
        """Positions from a window's first tap to its last one, both counted."""
        return (self.window - 1) * self.dilation + 1

    @property
    def out(self) -> int:
        """Windows, which is to say outputs."""
        return (self.size + self.before + self.after - self.reach) // self.stride + 1

    @property
    def span(self) -> int:
        """Positions from the first tap of the first window to the last tap of the last one."""
        return (self.out - 1) * self.stride + self.reach

    @property
    def padded(self) -> bool:
        """Whether there is padding."""
        return self.before > 0 or self.after > 0

    def starts(self) -> np.ndarray:
        """Where each window starts: int64 (out,), negative in the padding."""
        return np.arange(self.out, dtype=np.int64) * self.stride - self.before

    def first_inside(self) -> np.ndarray:
        """The first position of the input under each window: int64 (out,), or NOWHERE."""
        starts = self.starts()
        skipped = np.maximum(-(starts // self.dilation), 0)
        firsts = starts + skipped * self.dilation
        return np.where((skipped < self.window) & (firsts < self.size), firsts, NOWHERE)

    def taps_inside(self) -> int:
        """How many taps of all windows lie inside the input."""
        taps = self.starts()[:, np.newaxis] + np.arange(self.window) * self.dilation
        return int(((taps >= 0) & (taps < self.size)).sum())

    def with_border(self) -> "Axis":
        """The same windows over an input that contains what was padding."""
        return replace(self, size=self.size + self.before + self.after, before=0, after=0)


@dataclass(frozen=True)
class Geometry:
    """A window that slides over images, from ``channels`` to ``outputs`` channels.

    Attributes:
        batch: images.
        rows, columns: the two directions.
        channels: of the input.
        outputs: channels of the result.
        groups: an output channel reads only the input channels of its group, ``channels / groups``
            of them. There are as many as input channels in poolings and depthwise convolutions.
    """

    batch: int
    rows: Axis
    columns: Axis
    channels: int
    outputs: int
    groups: int = 1

    @classmethod
    def of(cls, shapes: Sequence[Sequence[int]], attrs: Mapping[str, Any]) -> "Geometry":
        """That of an operator.

        Args:
            shapes: of the input (n, h, w, c), and of the weight if it has one: (o, kh, kw, c /
                groups), or (kh, kw, o) of a depthwise convolution.
            attrs: ``strides`` (y, x), ``padding`` (top, left, bottom, right); ``pool_size`` (y, x)
                without weight; perhaps ``dilation`` (y, x) and ``groups``.
        """
        batch, *sizes, channels = shapes[0]
        if len(shapes) == 1:
            window, outputs, groups = attrs["pool_size"], channels, channels
        elif len(shapes[1]) == 3:
            window, outputs, groups = shapes[1][:2], shapes[1][2], channels
        else:
            window, outputs, groups = shapes[1][1:3], shapes[1][0], attrs.get("groups", 1)
        padding, dilation = attrs["padding"], attrs.get("dilation", (1, 1))
        rows, columns = (
            Axis(sizes[i], window[i], attrs["strides"][i], dilation[i], padding[i], padding[i + 2])
            for i in range(2)
        )
        return cls(batch, rows, columns, channels, outputs, groups)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The input's: (n, h, w, c)."""
        return self.batch, self.rows.size, self.columns.size, self.channels

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        """The result's: (n, h, w, c)."""
        return self.batch, self.rows.out, self.columns.out, self.outputs

    @property
    def pixels(self) -> int:
        """Pixels of the result in one image."""
        return self.rows.out * self.columns.out

    @property
    def taps(self) -> int:
        """Of the window."""
        return self.rows.window * self.columns.window

    @property
    def padded(self) -> bool:
        """Whether there is padding."""
        return self.rows.padded or self.columns.padded

    @property
    def dilated(self) -> bool:
        """Whether neighbouring taps read pixels that are not neighbours."""
        return self.rows.dilation != 1 or self.columns.dilation != 1

    @property
    def pointwise(self) -> bool:
        """Whether each pixel of the result is computed from the same pixel of the input."""
        return self.taps == 1 and not self.padded and self.rows.stride == self.columns.stride == 1

    def transposed(self) -> "Geometry":
        """With the images' rows and columns exchanged."""
        return replace(self, rows=self.columns, columns=self.rows)

    def flattened(self) -> "Geometry":
        """A pointwise layer, with the pixels of all images in one row."""
        pixels = self.batch * self.pixels
        return replace(self, batch=1, rows=Axis(1), columns=Axis(pixels))

    def with_border(self) -> "Geometry":
        """The same windows over images that contain what was padding."""
        return replace(self, rows=self.rows.with_border(), columns=self.columns.with_border())

    def first_pixels(self) -> np.ndarray:
        """The first input pixel under the window of each output pixel.

        Returns:
            int64 (n, out_h, out_w): index of the pixel in (n, h, w), or NOWHERE where the whole
            window lies in the padding.
        """
        rows, columns = self.rows.first_inside()[:, np.newaxis], self.columns.first_inside()
        height, width = self.rows.size, self.columns.size
        images = np.arange(self.batch, dtype=np.int64)[:, np.newaxis, np.newaxis] * height * width
        inside = (rows != NOWHERE) & (columns != NOWHERE)
        # What is nowhere is multiplied as 0 first: the largest int64 would overflow.
        return np.where(inside, images + np.where(inside, rows, 0) * width + columns, NOWHERE)
