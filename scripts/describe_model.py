"""Rule describe_model: what is in a model, stimuli, and the oracle's answers to them."""

from pathlib import Path

from mcuforge import formats
from mcuforge.jobs import job
from mcuforge.models import vectors

with job(snakemake.log[0]):
    model = Path(snakemake.input[0])
    name, task = snakemake.wildcards.model, snakemake.params.task
    description = formats.of(model).describe(formats.read(model), name, task)
    description.write(Path(snakemake.output.description))
    vectors.write(description, model, Path(snakemake.output.vectors))
