"""Rule compile_model: from .tflite to a Model Library Format archive."""

from pathlib import Path

from mcuforge.jobs import job

with job(snakemake.log[0]):
    from mcuforge.compiler import compile_model
    from mcuforge.target import Target

    compile_model(
        Path(snakemake.input.model),
        snakemake.wildcards.model,
        Target.parse(snakemake.wildcards.target),
        int(snakemake.wildcards.opt_level),
        Path(snakemake.output[0]),
    )
