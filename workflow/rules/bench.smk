localrules:
    measure,


rule measure:
    input:
        unpack(firmware_of),
        archive=archive_of,
        vectors=Artifact.VECTORS,
        data_set=data_set_of,
    output:
        Artifact.MEASUREMENT,
    log:
        Artifact.MEASUREMENT.log,
    retries: 2  # boards and ports have bad moments
    conda:
        CONDA
    resources:
        **{board: uses_board(board) for board in EXPERIMENT.physical_boards},
    params:
        board=lambda wildcards: EXPERIMENT.run_facts(wildcards.board),
        measure=config.get("measure", {}),
        quality_target=lambda wildcards: EXPERIMENT.models[wildcards.model].quality_target,
        step=provenance.step("measure"),
    script:
        "../../scripts/measure.py"
