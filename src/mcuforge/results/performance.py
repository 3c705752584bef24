"""The document docs/performance.md: what was measured, beside a reference and the limit."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

import mcuforge
from mcuforge import files
from mcuforge.results import figures, limits, references, summary

# Bounds for a model. Instructions are parts of the reference's, for each model and in the mean.
# Code is that of level 3. Weights are parts of the model's own, by level.
RATIO_EACH, RATIO_MEAN = 0.85, 0.65
CODE_BYTES = 24 << 10
WEIGHTS = {3: 1.1, 4: 2.1}
_TEMPLATES = Path(__file__).parent / "templates"
_CELL = ["board", "model"]


def write(
    rows: pd.DataFrame,
    profiles: dict[str, pd.DataFrame],
    reference: pd.DataFrame | None,
    document: Path,
    pictures: dict[str, Path],
) -> None:
    """Write the document, as Markdown, and draw its pictures.

    Args:
        rows: a summary; rows of hardware are left out.
        profiles: the profile of each cell of ``summary.best(rows)``, by ``str(Cell)``.
        reference: as ``references.read`` returns it; None leaves its columns out.
        document: the file to write.
        pictures: the files to draw: ``ratios``, ``levels`` and ``kinds``.
    """
    order = {board: place for place, board in enumerate(rows["board"].unique())}
    rows = rows.sort_values("board", key=lambda names: names.map(order), kind="stable")
    rows = compared(rows, reference)
    best = summary.best(rows)
    operators = {
        cell: operator_rows(profiles[cell], best.loc[index, "core"])
        for index, cell in zip(best.index, summary.cells(best), strict=True)
    }
    _draw(rows, best, operators, reference is not None, pictures)
    text = _environment().get_template("performance.md.j2").render(
        boards=_boards(rows),
        models=list(rows["model"].unique()),
        version=mcuforge.__version__,
        versions={
            name: sorted(rows[column].dropna().unique())
            for name, column in (
                ("TVM", "tvm_version"),
                ("toolchains", "toolchain_version"),
                ("emulator", "emulator_version"),
            )
        },
        reference=reference is not None,
        reference_name=references.CMSIS_NN.replace("+", " + "),
        ratios=_ratios(best) if reference is not None else None,
        best=_best(best),
        levels=_levels(rows),
        toolchains={board: _toolchains(here) for board, here in rows.groupby("board", sort=False)},
        memory=_memory(rows),
        held_back=_held_back(best, operators),
        kinds=_kinds(best, operators),
        operators={cell: _operators(frame) for cell, frame in operators.items()},
        dsp=limits.DSP,
        helium=limits.HELIUM,
        bars={"each": RATIO_EACH, "mean": RATIO_MEAN, "code": CODE_BYTES, "weights": WEIGHTS},
        pictures={
            name: path.relative_to(document.parent).as_posix() for name, path in pictures.items()
        },
    )  # fmt: skip
    files.write(document, text)


def compared(rows: pd.DataFrame, reference: pd.DataFrame | None) -> pd.DataFrame:
    """The emulated rows of a summary, beside a reference.

    Returns:
        the rows with the columns `reference_instructions`, `reference_compiler`,
        `reference_arena_bytes` and `ratio`; missing without a reference.
    """
    rows = rows[rows["instructions"].notna()].reset_index(drop=True)
    key = [rows["core"].str.split("+").str[0], rows["model"]]
    names = ["compiler", "instructions", "arena_bytes"]
    found = pd.DataFrame(index=rows.index, columns=names, dtype=object)
    if reference is not None:
        found = reference.reindex(pd.MultiIndex.from_arrays(key)).reset_index(drop=True)
    rows = rows.assign(**{f"reference_{name}": found[name] for name in names})
    ratio = rows["instructions"].astype(float) / rows["reference_instructions"].astype(float)
    return rows.assign(ratio=ratio)


def operator_rows(profile: pd.DataFrame, core: str) -> pd.DataFrame:
    """A profile with `limit`, the fewest instructions there can be, and `excess` above it."""
    limit = [
        limits.instructions(
            core, row.products, tuple(map(int, row.shape.split("x"))), row.macs_executed
        )
        for row in profile.itertuples(index=False)
    ]
    profile = profile.assign(limit=pd.Series(limit, profile.index, float))
    return profile.assign(excess=profile["count"].astype(float) - profile["limit"].fillna(0))


def mean(values: Iterable[float]) -> float:
    """Geometric mean; not a number where a value is missing."""
    logarithms = [math.log(value) if value > 0 else math.nan for value in values]
    return math.exp(sum(logarithms) / len(logarithms)) if logarithms else math.nan


def _draw(
    rows: pd.DataFrame,
    best: pd.DataFrame,
    operators: dict[str, pd.DataFrame],
    reference: bool,
    pictures: dict[str, Path],
) -> None:
    if reference:
        title = "Instructions, emulated, beside TFLM + CMSIS-NN"
        figures.ratios(best, RATIO_EACH, title, pictures["ratios"])
    else:
        figures.boards(rows, pictures["ratios"])
    title = "Instructions, emulated, at each level with the best toolchain"
    figures.relative_levels(_fastest(rows, [*_CELL, "opt_level"]), title, pictures["levels"])
    parts = [
        kinds(operators[cell])
        .rename("per_mac")
        .div(row.macs_executed)
        .reset_index()
        .assign(board=row.board, core=row.core, model=row.model)
        for row, cell in zip(best.itertuples(), summary.cells(best), strict=True)
    ]
    title = "Instructions, emulated, by kind of operator"
    figures.kinds(pd.concat(parts, ignore_index=True), title, pictures["kinds"])


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    environment.filters["table"] = _markdown
    return environment


def _markdown(frame: pd.DataFrame) -> str:
    """A table of texts; the first columns, those of the index, are aligned left."""
    names = [*map(str, frame.index.names), *frame.columns]
    sides = [":--"] * frame.index.nlevels + ["--:"] * len(frame.columns)
    body = [
        [*(key if isinstance(key, tuple) else (key,)), *row]
        for key, row in zip(frame.index, frame.itertuples(index=False), strict=True)
    ]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in [names, sides, *body])


def _count(value: Any) -> str:
    return "" if pd.isna(value) else f"{round(value):,}"


def _ratio(value: Any) -> str:
    return "" if pd.isna(value) else f"{value:.3f}"


def _percent(value: Any) -> str:
    return "" if pd.isna(value) else f"{value:.1%}"


def _boards(rows: pd.DataFrame) -> dict[str, str]:
    return dict(rows[["board", "core"]].drop_duplicates().itertuples(index=False, name=None))


def _with(row: Any) -> str:
    return f"{row.toolchain} O{row.opt_level}"


def _table(records: list[dict[str, str]], index: list[str]) -> pd.DataFrame:
    return pd.DataFrame(records).fillna("").set_index(index)


def _ratios(best: pd.DataFrame) -> pd.DataFrame:
    """One row a board: the ratio of each model, and their mean."""
    records = []
    for (board, core), here in best.groupby(["board", "core"], sort=False):
        by_model = dict(zip(here["model"], here["ratio"], strict=True))
        records.append(
            {
                "core": core,
                "board": board,
                **{model: _ratio(ratio) for model, ratio in by_model.items()},
                "geometric mean": f"**{_ratio(mean(by_model.values()))}**",
                "largest": _ratio(max(by_model.values())),
            }
        )
    return _table(records, ["core", "board"])


def _best(best: pd.DataFrame) -> pd.DataFrame:
    records = [
        {
            "board": row.board,
            "model": row.model,
            "MACs": _count(row.macs),
            "executed": _count(row.macs_executed),
            "reference": _count(row.reference_instructions),
            "its compiler": "" if pd.isna(row.reference_compiler) else row.reference_compiler,
            "mcuforge": _count(row.instructions),
            "with": _with(row),
            "ratio": _ratio(row.ratio),
            "per MAC executed": _ratio(row.instructions / row.macs_executed),
        }
        for row in best.itertuples()
    ]
    return _table(records, _CELL)


def _fastest(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """The fastest row of each group, of those that answered right; level 0 never has to."""
    usable = rows[rows.index.isin(summary.sound(rows).index) | (rows["opt_level"] == 0)]
    return usable.loc[usable.groupby(keys, sort=False)["instructions"].idxmin()]


def _levels(rows: pd.DataFrame) -> pd.DataFrame:
    """Instructions at each level with its best toolchain; means of the ratios at the end."""
    fastest = _fastest(rows, [*_CELL, "opt_level"])
    records = []
    for board, here in fastest.groupby("board", sort=False):
        for model, cells in here.groupby("model", sort=False):
            texts = {f"O{r.opt_level}": f"{_count(r.instructions)}" for r in cells.itertuples()}
            records.append({"board": board, "model": model, **texts})
        if here["ratio"].notna().any():
            levels = {
                f"O{level}": _ratio(mean(at["ratio"])) for level, at in here.groupby("opt_level")
            }
            records.append({"board": board, "model": "*mean ratio*", **levels})
    return _table(records, _CELL)


def _toolchains(rows: pd.DataFrame) -> pd.DataFrame:
    """Instructions of each toolchain, on one board."""
    names = list(rows["toolchain"].unique())
    records = []
    for (model, level), here in rows.groupby(["model", "opt_level"], sort=False):
        cells = {row.toolchain: row for row in here.itertuples()}
        texts = {name: _outcome(cells[name]) if name in cells else "" for name in names}
        records.append({"model": model, "level": f"O{level}", **texts})
    return _table(records, ["model", "level"])


def _outcome(row: Any) -> str:
    wrong = row.opt_level > 0 and row.status != "ok"
    return _count(row.instructions) + (f" ({row.status})" if wrong else "")


def _memory(rows: pd.DataFrame) -> pd.DataFrame:
    """Bytes of the fastest cell at levels 3 and 4."""
    records = []
    for row in _fastest(rows[rows["opt_level"] >= 3], [*_CELL, "opt_level"]).itertuples():
        arena = row.reference_arena_bytes
        records.append(
            {
                "board": row.board,
                "model": row.model,
                "level": f"O{row.opt_level}",
                "toolchain": row.toolchain,
                "code": _count(row.code_bytes),
                "weights": _count(row.weights_bytes),
                "of the model's": _ratio(row.weights_bytes / row.model_weights_bytes),
                "workspace": _count(row.workspace_bytes),
                "reference's arena": _count(arena),
                "stack": _count(row.stack_bytes),
            }
        )
    return _table(records, [*_CELL, "level", "toolchain"])


def _held_back(best: pd.DataFrame, operators: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """How far each model is from its limit, and what takes most of the difference."""
    records = []
    for row, cell in zip(best.itertuples(), summary.cells(best), strict=True):
        frame = operators[cell]
        if frame["limit"].isna().all():
            continue
        above = frame.assign(excess=frame["excess"].clip(lower=0))
        total = above["excess"].sum()
        kind = above.groupby("operator")["excess"].sum()
        worst = above.loc[above["excess"].idxmax()]
        single = f"{worst['index']} {worst['operator']} {worst['shape']}"
        records.append(
            {
                "board": row.board,
                "model": row.model,
                "instructions": _count(row.instructions),
                "limit": _count(frame["limit"].sum()),
                "times the limit": f"{frame['count'].sum() / frame['limit'].sum():.2f}",
                "held back by": f"{kind.idxmax()} {_percent(kind.max() / total)}",
                "most by": f"{single} {_percent(worst['excess'] / total)}",
            }
        )
    return _table(records, _CELL) if records else pd.DataFrame()


def kinds(operators: pd.DataFrame) -> pd.Series:
    """Instructions of a profile by kind of operator, most first."""
    return operators.groupby("operator", sort=False)["count"].sum().sort_values(ascending=False)


def _kinds(best: pd.DataFrame, operators: dict[str, pd.DataFrame]) -> pd.DataFrame:
    records = []
    for row, cell in zip(best.itertuples(), summary.cells(best), strict=True):
        counts = kinds(operators[cell])
        shares = {name: _percent(count / counts.sum()) for name, count in counts.items()}
        records.append({"board": row.board, "model": row.model, **shares})
    return _table(records, _CELL)


def _operators(frame: pd.DataFrame) -> pd.DataFrame:
    records = [
        {
            "#": row.index,
            "operator": row.operator,
            "result": row.shape,
            "MACs": _count(row.macs),
            "executed": _count(row.macs_executed),
            "instructions": _count(row.count),
            "share": _percent(row.share),
            "per MAC": _ratio(row.per_mac),
            "limit": _count(row.limit),
        }
        for row in frame.itertuples(index=False)
    ]
    return _table(records, ["#", "operator", "result"])
