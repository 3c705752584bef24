"""Rule fetch_model: a model's file, from the first source that has it."""

from pathlib import Path

from mcuforge.jobs import job
from mcuforge.models import fetch, registry

with job(snakemake.log[0]) as terminal:
    models = registry.load(Path(snakemake.config["registries"]["models"]))
    model = registry.get(models, snakemake.wildcards.model)
    fetch.fetch(model, Path(snakemake.output[0]), progress=terminal)
