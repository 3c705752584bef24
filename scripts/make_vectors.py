"""Rule make_vectors: stimuli for a model, and the oracle's answers to them."""

from pathlib import Path

from mcuforge import formats
from mcuforge.jobs import job
from mcuforge.models import vectors

with job(snakemake.log[0]):
    model = Path(snakemake.input[0])
    description = formats.of(model).describe(formats.read(model), snakemake.wildcards.model)
    vectors.write(description, model, Path(snakemake.output[0]))
