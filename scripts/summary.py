"""Rule summary: one row a cell of the grid."""

from pathlib import Path

from mcuforge.jobs import job
from mcuforge.results import summary

with job(snakemake.log[0]):
    summary.write(summary.collect(map(Path, snakemake.input)), Path(snakemake.output[0]))
