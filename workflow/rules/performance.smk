localrules:
    performance,


# Not part of the grid: documentation, made anew when somebody asks for it.
rule performance:
    input:
        summary=Artifact.SUMMARY,
        profiles=best_profiles,
        reference=[config["reference"]] if "reference" in config else [],
    output:
        document=Artifact.PERFORMANCE,
        ratios=Artifact.PERFORMANCE_RATIOS,
        levels=Artifact.PERFORMANCE_LEVELS,
        kinds=Artifact.PERFORMANCE_OPERATORS,
    log:
        Artifact.PERFORMANCE.log,
    conda:
        CONDA
    params:
        step=provenance.step("performance"),
    script:
        "../../scripts/performance.py"
