localrules:
    performance,


# Not part of the grid: documentation, made anew when somebody asks for it.
rule performance:
    input:
        summary="results/summary.csv",
        profiles=best_profiles,
        reference=[config["reference"]] if "reference" in config else [],
    output:
        document="docs/performance.md",
        ratios="docs/performance/ratios.svg",
        levels="docs/performance/levels.svg",
        kinds="docs/performance/operators.svg",
    log:
        "results/logs/performance.log",
    conda:
        CONDA
    params:
        step=provenance.step("performance", "results"),
    script:
        "../../scripts/performance.py"
