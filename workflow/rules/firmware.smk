rule build_firmware:
    input:
        archive=archive_of,
        check=check_of,
    output:
        elf=Artifact.FIRMWARE,
        sizes=Artifact.SIZE,
    log:
        Artifact.FIRMWARE.log,
    conda:
        CONDA
    resources:
        mem_mb=500,
    params:
        benchmark=lambda wildcards: EXPERIMENT.models[wildcards.model].benchmark,
        board=lambda wildcards: EXPERIMENT.build_facts(wildcards.board),
        step=provenance.step("build_firmware"),
        toolchain=toolchain_version,
        zephyr=zephyr_version,
    script:
        "../../scripts/build_firmware.py"


use rule build_firmware as build_profile_firmware with:
    output:
        elf=Artifact.PROFILE_FIRMWARE,
        sizes=Artifact.PROFILE_SIZE,
    log:
        Artifact.PROFILE_FIRMWARE.log,
    params:
        profile=True,


localrules:
    zephyr_workspace,


# Not part of the grid: `snakemake zephyr_workspace`, where there is no Zephyr yet. Needs network.
rule zephyr_workspace:
    output:
        Artifact.ZEPHYR_WORKSPACE,
    log:
        Artifact.ZEPHYR_WORKSPACE.log,
    conda:
        CONDA
    params:
        modules=EXPERIMENT.zephyr_modules,
    script:
        "../../scripts/zephyr_workspace.py"
