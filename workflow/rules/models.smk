rule impossible_cell:  # says why, where a name asked for fits no other rule
    input:
        refuse,
    output:
        "results/{impossible}",


localrules:
    fetch_model,
    fetch_data_set,
    describe_model,


rule fetch_model:
    output:
        "results/models/{model}.tflite",
    log:
        "results/logs/models/{model}.fetch.log",
    conda:
        CONDA
    params:
        sha256=lambda wildcards: EXPERIMENT.models[wildcards.model].sha256,
        step=provenance.step("fetch_model"),
    script:
        "../../scripts/fetch_model.py"


rule fetch_data_set:
    output:
        "results/datasets/{dataset}.zip",
    log:
        "results/logs/datasets/{dataset}.log",
    conda:
        CONDA
    params:
        content=lambda wildcards: EXPERIMENT.data_set_content(wildcards.dataset),
        step=provenance.step("fetch_data_set", "models/datasets"),
    script:
        "../../scripts/fetch_data_set.py"


rule describe_model:
    input:
        "results/models/{model}.tflite",
    output:
        description="results/models/{model}.json",
        vectors="results/models/{model}.vectors.npz",
    log:
        "results/logs/models/{model}.describe.log",
    conda:
        CONDA
    params:
        task=lambda wildcards: EXPERIMENT.models[wildcards.model].task,
        step=provenance.step(
            "describe_model",
            "formats/description",
            "formats/format",
            "formats/tflite/describe",
            "formats/tflite/oracle",
            "models/vectors",
        ),
    script:
        "../../scripts/describe_model.py"
