rule compile_model:
    input:
        model="results/models/{model}.tflite",
    output:
        "results/mlf/{model}/{target}/O{opt_level}.tar",
    log:
        "results/logs/mlf/{model}/{target}/O{opt_level}.log",
    conda:
        CONDA
    resources:
        mem_mb=1500,
    params:
        compiler=provenance.compiler(),
        step=provenance.step("compile_model"),
    script:
        "../../scripts/compile_model.py"
