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
    script:
        "../../scripts/build_firmware.py"
