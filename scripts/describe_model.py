"""Rule describe_model: what is in a model, stimuli, and the oracle's answers to them."""

from pathlib import Path

from mcuforge.formats.tflite.describe import describe
from mcuforge.jobs import job
from mcuforge.models import vectors

with job(snakemake.log[0]):
    model = Path(snakemake.input[0])
    description = describe(model.read_bytes(), snakemake.wildcards.model, snakemake.params.task)
    description.write(Path(snakemake.output.description))
    vectors.write(description, model, Path(snakemake.output.vectors))
