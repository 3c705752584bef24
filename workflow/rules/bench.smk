localrules:
    measure,


rule measure:
    input:
        unpack(firmware_of),
        archive=archive_of,
        vectors="results/models/{model}.vectors.npz",
        data_set=data_set_of,
    output:
        "results/bench/{model}/{board}/{toolchain}/O{opt_level}/{mode}.json",
    log:
        "results/logs/bench/{model}/{board}/{toolchain}/O{opt_level}/{mode}.log",
    retries: 2  # boards and ports have bad moments
    conda:
        CONDA
    resources:
        **{board: uses_board(board) for board in EXPERIMENT.physical_boards},
    params:
        board=lambda wildcards: EXPERIMENT.run_facts(wildcards.board),
        measure=config.get("measure", {}),
        quality_target=lambda wildcards: EXPERIMENT.models[wildcards.model].quality_target,
        step=provenance.step("measure", "boards", "runner", "results/records", "models/datasets"),
    script:
        "../../scripts/measure.py"
