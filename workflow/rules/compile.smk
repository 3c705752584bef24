rule compile_model:
    input:
        model=Artifact.MODEL,
    output:
        Artifact.ARCHIVE,
    log:
        Artifact.ARCHIVE.log,
    conda:
        CONDA
    resources:
        mem_mb=1500,
    params:
        compiler=provenance.compiler(),
        step=provenance.step("compile_model"),
    script:
        "../../scripts/compile_model.py"
