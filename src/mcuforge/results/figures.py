"""Figures of a summary, as reproducible SVG. Emulated and measured time never share an axis."""

import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.patches
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from mcuforge import files
from mcuforge.results import summary

mpl.rcParams["svg.hashsalt"] = "mcuforge"  # element ids that do not change from run to run
sns.set_theme(style="whitegrid", palette="colorblind", font_scale=0.9)

_COLUMNS = 3  # panels side by side
_LEGEND_COLUMNS = 5
_PANEL = (3.4, 2.8)  # inches
_WORK = {
    "instructions": "instructions, millions",
    "hardware": "time, ms",
    "model": "modelled cycles, millions",
}
_BARS = 0.8  # width of all bars at one level
_FLASH = {"code_bytes": "model code", "weights_bytes": "weights", "": "everything else"}
_RAM = {"workspace_bytes": "workspace", "stack_bytes": "stack used", "": "everything else"}


def levels(rows: pd.DataFrame, path: Path) -> None:
    """One model: work of an inference at each opt_level, one panel a board, one bar a toolchain.

    Args:
        rows: the summary's rows of the model.
        path: the SVG to write.
    """
    rows = rows.assign(work=_work(rows), level="O" + rows["opt_level"].astype(str))
    figure, panels = _panels(rows["board"].unique())
    order = sorted(rows["level"].unique())
    toolchains = list(rows["toolchain"].unique())
    for board, axes in panels.items():
        here = rows[rows["board"] == board]
        timebase = here["timebase"].iloc[0]
        sns.barplot(
            here,
            x="level",
            y="work",
            hue="toolchain",
            order=order,
            hue_order=toolchains,
            width=_BARS,
            legend=False,
            ax=axes,
        )
        _label(axes, here, order, toolchains)
        same = rows[rows["timebase"] == timebase]["work"].max()
        axes.set(
            title=_heading(here),
            xlabel="opt_level",
            ylabel=_WORK[timebase],
            ylim=(0, 1.25 * same if same > 0 else 1),
        )
        axes.grid(visible=False, axis="x")
    if len(toolchains) > 1:
        _legend(figure, toolchains)
    _save(figure, f"{rows['model'].iloc[0]}: one inference at each optimization level", path)


def memory(rows: pd.DataFrame, path: Path) -> None:
    """One model: flash (top) and RAM (bottom) of each cell, one column of panels a board."""
    names = list(rows["board"].unique())
    figure = Figure(figsize=(_PANEL[0] * len(names), 2 * _PANEL[1]), layout="constrained")
    grid = figure.subplots(2, len(names), squeeze=False, sharey="row", sharex="col")
    several = rows["toolchain"].nunique() > 1
    for column, board in enumerate(names):
        here = rows[rows["board"] == board].sort_values(["opt_level", "toolchain"])
        ticks = [
            f"O{row.opt_level} {row.toolchain}" if several else f"O{row.opt_level}"
            for row in here.itertuples()
        ]
        for line, (total, parts) in enumerate((("flash_bytes", _FLASH), ("ram_bytes", _RAM))):
            axes = grid[line][column]
            _stack(axes, here, ticks, total, parts)
            if not column:
                axes.set_ylabel("flash, KiB" if not line else "RAM, KiB")
            if column == len(names) - 1:
                handles = axes.get_legend_handles_labels()
                axes.legend(
                    *(list(reversed(h)) for h in handles),
                    loc="upper left",
                    bbox_to_anchor=(1.02, 1),
                    frameon=False,
                )
        grid[0][column].set_title(_heading(here))
        grid[1][column].set_xlabel("opt_level")
        grid[1][column].tick_params(axis="x", labelrotation=90 if several else 0)
    for axes in grid[:, 0]:
        axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
    _save(figure, f"{rows['model'].iloc[0]}: memory", path)


def boards(rows: pd.DataFrame, path: Path) -> None:
    """All models: work per multiply-accumulate on each board, at its best level and toolchain.

    One panel a timebase: instructions per MAC for emulated boards, cycles per MAC for hardware.
    Cells with wrong answers do not count.
    """
    right = summary.sound(rows)
    right = right[right["per_mac"].notna()]
    best = right.loc[right.groupby(["model", "board"], sort=False)["per_mac"].idxmin()]
    timebases = list(best["timebase"].unique()) or ["instructions"]
    names = list(best["board"].unique())
    width = max(6.0, 0.45 * len(best) / len(timebases) + 2.5)
    figure = Figure(figsize=(width, 3.4 * len(timebases)), layout="constrained")
    grid = figure.subplots(len(timebases), 1, squeeze=False)[:, 0]
    colors = dict(zip(names, sns.color_palette("colorblind", len(names)), strict=True))
    for timebase, axes in zip(timebases, grid, strict=True):
        here = best[best["timebase"] == timebase]
        present = [name for name in names if name in set(here["board"])]
        if present:
            sns.barplot(
                here,
                x="model",
                y="per_mac",
                hue="board",
                hue_order=present,
                palette=colors,
                ax=axes,
            )
            sns.move_legend(axes, "upper left", bbox_to_anchor=(1.01, 1), title=None, frameon=False)
        for bars in axes.containers:
            axes.bar_label(bars, [_short(bar.get_height()) for bar in bars], padding=2, fontsize=7)
        unit = "cycles" if timebase == "hardware" else "instructions"
        axes.set(xlabel="", ylabel=f"{unit} per MAC")
        axes.margins(y=0.12)
        axes.grid(visible=False, axis="x")
    _save(figure, "Boards compared, each at its best level and toolchain", path)


def profile(rows: pd.DataFrame, title: str, path: Path) -> None:
    """What each operator costs, one bar an operator, in the order they run.

    Args:
        rows: as ``profile.table`` returns them.
        title: the cell.
        path: the SVG to write.
    """
    names = [f"{r.index} {r.operator} {r.shape}" for r in rows.itertuples(index=False)]
    figure = Figure(figsize=(7.0, max(1.6, 0.22 * len(rows) + 1.0)), layout="constrained")
    axes = figure.subplots()
    hardware = (rows["timebase"] == "hardware").any()
    unit = "cycles" if hardware else "instructions"
    if len(rows):
        kinds = list(rows["operator"].unique())
        colors = dict(zip(kinds, sns.color_palette("colorblind", len(kinds)), strict=True))
        counts = rows["count"].astype(float) / 1e3
        bars = axes.barh(names, counts, color=rows["operator"].map(colors))
        costs = rows["per_mac"].map(lambda cost: f", {_short(cost)} per MAC" if cost > 0 else "")
        labels = [f"{share:.1%}{cost}" for share, cost in zip(rows["share"], costs, strict=True)]
        axes.bar_label(bars, labels, padding=3, fontsize=7)
        axes.margins(x=0.4, y=0.01)
        axes.invert_yaxis()
    else:
        axes.text(0.5, 0.5, "does not fit", ha="center", transform=axes.transAxes)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_xlabel(f"{unit}, thousands")
    axes.grid(visible=False, axis="y")
    _save(figure, title, path)


def ratios(best: pd.DataFrame, limit: float, title: str, path: Path) -> None:
    """Each model on each core, as the ratio of its instructions to a reference's.

    Args:
        best: a row a model and board, with the column `ratio`.
        limit: the ratio no model should exceed, drawn as a line.
    """
    figure = Figure(figsize=(9.0, 3.2), layout="constrained")
    axes = figure.subplots()
    sns.barplot(best, x="model", y="ratio", hue="core", palette="colorblind", ax=axes)
    for bars in axes.containers:
        assert isinstance(bars, BarContainer)
        axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=7)
    axes.axhline(1.0, color="black", linewidth=1)
    axes.axhline(limit, color="black", linewidth=1, linestyle="--")
    axes.set(
        xlabel="",
        ylabel="instructions, reference = 1",
        ylim=(0, max(1.1, 1.1 * best["ratio"].max())),
    )
    axes.grid(visible=False, axis="x")
    sns.move_legend(axes, "upper left", bbox_to_anchor=(1.01, 1), title=None, frameon=False)
    _save(figure, title, path)


def relative_levels(fastest: pd.DataFrame, title: str, path: Path) -> None:
    """Each model at each level, one panel a board, as multiples of its best.

    Args:
        fastest: a row a model, board and level.
    """
    least = fastest.groupby(["board", "model"])["instructions"].transform("min")
    work = (fastest["instructions"] / least).astype(float)
    rows = fastest.assign(work=work, level="O" + fastest["opt_level"].astype(str))
    figure, panels = _panels(list(rows["board"].unique()), columns=2)
    order = sorted(rows["level"].unique())
    models = list(rows["model"].unique())
    for board, axes in panels.items():
        here = rows[rows["board"] == board]
        sns.pointplot(
            here, x="level", y="work", hue="model", order=order, hue_order=models,
            palette="colorblind", markersize=4, linewidth=1.5, legend=False, ax=axes,
        )  # fmt: skip
        axes.set(title=_heading(here), xlabel="opt_level", ylabel="instructions, best = 1")
        axes.set_yscale("log")
        axes.set_yticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
        axes.minorticks_off()
    _legend(figure, models)
    _save(figure, title, path)


def kinds(shares: pd.DataFrame, title: str, path: Path) -> None:
    """Where each model's instructions go, by kind of operator, one panel a core.

    Args:
        shares: columns `board`, `core`, `model`, `operator` and `per_mac`, the instructions of one
            kind of operator for each multiply-accumulate the model executes.
    """
    figure, panels = _panels(list(shares["board"].unique()), columns=2)
    names = list(shares.groupby("operator")["per_mac"].sum().sort_values(ascending=False).index)
    colors = dict(zip(names, sns.color_palette("colorblind", len(names)), strict=True))
    for board, axes in panels.items():
        here = shares[shares["board"] == board]
        table = here.pivot_table(
            index="model", columns="operator", values="per_mac", sort=False
        ).fillna(0)
        bottom = pd.Series(0.0, table.index)
        for name in (n for n in names if n in table):
            axes.bar(table.index, table[name], bottom=bottom, color=colors[name], width=0.7)
            bottom += table[name]
        for model, total in bottom.items():
            axes.annotate(
                _short(total), (model, total), xytext=(0, 2), textcoords="offset points",
                ha="center", fontsize=7,
            )  # fmt: skip
        axes.set(title=_heading(here), ylabel="instructions per MAC executed")
        axes.margins(y=0.12)
        axes.grid(visible=False, axis="x")
    _legend(figure, names)
    _save(figure, title, path)


def _work(rows: pd.DataFrame) -> pd.Series:
    """Millions of instructions, milliseconds, or millions of modelled cycles."""
    work = rows["instructions"].astype("Float64") / 1e6
    work = work.mask(rows["timebase"] == "hardware", rows["latency_us"].astype("Float64") / 1e3)
    modelled = rows["cycles_modelled"].astype("Float64") / 1e6
    return work.mask(rows["timebase"] == "model", modelled).astype(float)


def _panels(names: list[str], columns: int = _COLUMNS) -> tuple[Figure, dict[str, Axes]]:
    columns = min(columns, len(names))
    lines = math.ceil(len(names) / columns)
    size = max(_PANEL[0] * columns, 4.2), _PANEL[1] * lines + 0.4
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for unused in grid[len(names) :]:
        unused.set_axis_off()
    return figure, dict(zip(names, grid, strict=False))


def _stack(
    axes: Axes, rows: pd.DataFrame, ticks: list[str], total: str, parts: dict[str, str]
) -> None:
    totals = rows[total].astype(float).fillna(0).to_numpy() / 1024
    bottom = 0 * totals
    for (column, label), color in zip(parts.items(), sns.color_palette("colorblind"), strict=False):
        height = totals - bottom  # the rest
        if column:
            height = rows[column].astype(float).fillna(0).to_numpy() / 1024
        bars = axes.bar(ticks, height, bottom=bottom, color=color, label=label, width=0.7)
        bottom = bottom + height
    labels = [_short(value) for value in totals]
    axes.bar_label(bars, labels, padding=2, fontsize=7, rotation=90 if len(ticks) > 6 else 0)
    axes.grid(visible=False, axis="x")


def _label(axes: Axes, rows: pd.DataFrame, order: list[str], toolchains: list[str]) -> None:
    """Write each bar's height on it, and what is wrong with its cell."""
    several = len(toolchains) > 1
    text: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": 7}
    for row in rows.itertuples():
        offset = (toolchains.index(row.toolchain) + 0.5) / len(toolchains) - 0.5
        place = order.index(row.level) + offset * _BARS
        if row.status == "does_not_fit":
            foot = axes.get_xaxis_transform()
            axes.text(place, 0.02, "does not fit", transform=foot, rotation=90, **text)
        elif row.work > 0:
            wrong = [] if row.status == "ok" else ["inexact"]
            label = (" " if several else "\n").join([_short(row.work), *wrong])
            above: dict[str, Any] = {"xytext": (0, 3), "textcoords": "offset points"}
            axes.annotate(label, (place, row.work), rotation=90 * several, **above, **text)


def _heading(rows: pd.DataFrame) -> str:
    row = rows.iloc[0]
    return f"{row['board']} ({row['core']})"


def _legend(figure: Figure, names: list[str]) -> None:
    colors = sns.color_palette("colorblind", len(names))
    handles = [mpl.patches.Patch(color=color) for color in colors]
    columns = min(len(names), _LEGEND_COLUMNS)
    figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False)


def _short(value: float) -> str:
    """Three significant digits, nothing for missing values."""
    if not value > 0:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _save(figure: Figure, title: str, path: Path) -> None:
    figure.suptitle(title)
    with files.atomic(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
