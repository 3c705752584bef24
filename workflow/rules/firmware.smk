rule build_firmware:
    input:
        archive=archive_of,
    output:
        elf="results/firmware/{model}/{board}/{toolchain}/O{opt_level}/firmware.elf",
        sizes="results/firmware/{model}/{board}/{toolchain}/O{opt_level}/size.json",
    log:
        "results/logs/firmware/{model}/{board}/{toolchain}/O{opt_level}.log",
    conda:
        CONDA
    resources:
        mem_mb=500,
    params:
        benchmark=lambda wildcards: EXPERIMENT.models[wildcards.model].benchmark,
        board=lambda wildcards: EXPERIMENT.build_facts(wildcards.board),
        sources=provenance.firmware(),
        step=provenance.step("build_firmware"),
        toolchain=toolchain_version,
        zephyr=zephyr_version,
    script:
        "../../scripts/build_firmware.py"


use rule build_firmware as build_profile_firmware with:
    output:
        elf="results/firmware/{model}/{board}/{toolchain}/O{opt_level}/profile.elf",
        sizes="results/firmware/{model}/{board}/{toolchain}/O{opt_level}/profile.json",
    log:
        "results/logs/firmware/{model}/{board}/{toolchain}/O{opt_level}.profile.log",
    params:
        profile=True,


localrules:
    zephyr_workspace,


# Not part of the grid: `snakemake zephyr_workspace`, where there is no Zephyr yet. Needs network.
rule zephyr_workspace:
    output:
        ZEPHYR_WORKSPACE / "manifest" / "west.yml",
    log:
        "results/logs/zephyr_workspace.log",
    conda:
        CONDA
    params:
        modules=EXPERIMENT.zephyr_modules,
    script:
        "../../scripts/zephyr_workspace.py"
