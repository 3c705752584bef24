"""Rule operator_cycles: modelled cycles of each operator of a cell, as a table."""

from pathlib import Path

from mcuforge import mlf
from mcuforge.jobs import job
from mcuforge.results import operator_cycles, summary
from mcuforge.results.columns import Measurement

with job(snakemake.log[0]):
    record = Measurement.read(Path(snakemake.input.record))
    rows = operator_cycles.table(record, mlf.read(Path(snakemake.input.archive)).info.operators)
    summary.write(rows, Path(snakemake.output[0]))
