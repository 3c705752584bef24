"""Rule calibration: modelled beside measured time of the boards on the bench."""

from pathlib import Path

from mcuforge.jobs import job
from mcuforge.results import summary, tables

with job(snakemake.log[0]):
    rows = tables.calibration(summary.read(Path(snakemake.input[0])))
    summary.write(rows, Path(snakemake.output[0]))
