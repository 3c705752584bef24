"""Rule board_figure: the boards side by side, each model at its best."""

from pathlib import Path

from mcuforge.jobs import job
from mcuforge.results import figures, summary

with job(snakemake.log[0]):
    figures.boards(summary.read(Path(snakemake.input[0])), Path(snakemake.output[0]))
