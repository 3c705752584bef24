"""Rule tables: the summary in the shape people compare."""

from pathlib import Path

from mcuforge.jobs import job
from mcuforge.results import summary, tables

with job(snakemake.log[0]):
    rows = summary.read(Path(snakemake.input[0]))
    summary.write(tables.levels(rows), Path(snakemake.output.levels))
    summary.write(tables.boards(rows), Path(snakemake.output.boards))
