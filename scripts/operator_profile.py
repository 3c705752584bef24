"""Rule operator_profile: what each operator of a cell costs, as table and figure."""

from pathlib import Path

from mcuforge import mlf
from mcuforge.jobs import job
from mcuforge.results import figures, profile, summary
from mcuforge.results.columns import Measurement

with job(snakemake.log[0]):
    record = Measurement.read(Path(snakemake.input.record))
    whole = Measurement.read(Path(snakemake.input.whole))
    rows = profile.table(record, whole, mlf.read(Path(snakemake.input.archive)).info.operators)
    summary.write(rows, Path(snakemake.output.table))
    title = "{model} on {board}, {toolchain}, O{opt_level}".format(**snakemake.wildcards)
    figures.profile(rows, title, Path(snakemake.output.figure))
