"""Rule model_figures: one model's speed and memory on every board."""

from pathlib import Path

from mcuforge.jobs import job
from mcuforge.results import figures, summary

with job(snakemake.log[0]):
    rows = summary.read(Path(snakemake.input[0]))
    rows = rows[rows["model"] == snakemake.wildcards.model]
    figures.levels(rows, Path(snakemake.output.levels))
    figures.memory(rows, Path(snakemake.output.memory))
