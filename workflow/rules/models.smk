rule impossible_cell:  # says why, where a name asked for fits no other rule
    input:
        refuse,
    output:
        "{impossible}",


localrules:
    fetch_model,
    fetch_data_set,
    make_vectors,


rule fetch_model:
    output:
        Artifact.MODEL,
    log:
        Artifact.MODEL.log,
    conda:
        CONDA
    params:
        sha256=lambda wildcards: EXPERIMENT.models[wildcards.model].sha256,
        step=provenance.step("fetch_model"),
    script:
        "../../scripts/fetch_model.py"


rule fetch_data_set:
    output:
        Artifact.DATA_SET,
    log:
        Artifact.DATA_SET.log,
    conda:
        CONDA
    params:
        content=lambda wildcards: EXPERIMENT.data_set_content(wildcards.dataset),
        step=provenance.step("fetch_data_set"),
    script:
        "../../scripts/fetch_data_set.py"


rule make_vectors:
    input:
        Artifact.MODEL,
    output:
        Artifact.VECTORS,
    log:
        Artifact.VECTORS.log,
    conda:
        CONDA
    params:
        step=provenance.step("make_vectors"),
    script:
        "../../scripts/make_vectors.py"
