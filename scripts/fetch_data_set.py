"""Rule fetch_data_set: a data set as one file, from the first source that has it."""

from pathlib import Path

from mcuforge.experiment import Experiment
from mcuforge.jobs import job
from mcuforge.models import datasets

with job(snakemake.log[0]) as terminal:
    entry = Experiment(snakemake.config).datasets[snakemake.wildcards.dataset]
    datasets.fetch_data_set(entry, Path(snakemake.output[0]), progress=terminal)
