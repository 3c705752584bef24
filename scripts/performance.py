"""Rule performance: docs/performance.md, from the summary and the profiles of its best cells."""

from pathlib import Path

from mcuforge.jobs import job
from mcuforge.results import performance, profile, references, summary

with job(snakemake.log[0]):
    rows = summary.read(Path(snakemake.input.summary))
    cells = summary.cells(summary.best(rows))
    profiles = dict(zip(cells, map(profile.read, map(Path, snakemake.input.profiles)), strict=True))
    reference = snakemake.input.reference
    performance.write(
        rows,
        profiles,
        references.read(Path(reference[0])) if reference else None,
        Path(snakemake.output.document),
        {name: Path(snakemake.output[name]) for name in ("ratios", "levels", "kinds")},
    )
