rule compile_model:
    input:
        model=Artifact.MODEL,
    output:
        Artifact.ARCHIVE,
    log:
        Artifact.ARCHIVE.log,
    group:
        "compile"
    conda:
        CONDA
    resources:
        mem_mb=1500,
    params:
        step=provenance.step("compile_model"),
    script:
        "../../scripts/compile_model.py"


# Nothing is built from code that answers otherwise than LiteRT.
rule check_model:
    input:
        archive=Artifact.ARCHIVE,
        vectors=Artifact.VECTORS,
    output:
        Artifact.CHECK,
    log:
        Artifact.CHECK.log,
    group:
        "compile"
    conda:
        CONDA
    resources:
        mem_mb=500,
    params:
        step=provenance.step("check_model"),
    script:
        "../../scripts/check_model.py"
