"""Rule zephyr_workspace: the pinned Zephyr with the modules the known boards need."""

from pathlib import Path

from mcuforge.firmware import workspace
from mcuforge.jobs import job

with job(snakemake.log[0]):
    manifest = Path(snakemake.output[0])
    workspace.create(manifest.parents[1], snakemake.params.modules, Path(snakemake.log[0]))
