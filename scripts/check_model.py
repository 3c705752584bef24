"""Rule check_model: a compiled model answers as the oracle does, on this machine."""

from pathlib import Path

from mcuforge import check, files
from mcuforge.jobs import job

with job(snakemake.log[0]):
    said = check.check_vectors(Path(snakemake.input.archive), Path(snakemake.input.vectors))
    print(said)
    files.write(Path(snakemake.output[0]), said + "\n")
