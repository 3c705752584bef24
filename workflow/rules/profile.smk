localrules:
    operator_profile,
    operator_cycles,


rule operator_profile:
    input:
        record=Artifact.MEASUREMENT.replace("{mode}", "profile"),
        whole=Artifact.MEASUREMENT.replace("{mode}", "performance"),
        archive=archive_of,
    output:
        table=report(
            Artifact.PROFILE_TABLE,
            category="Operators",
            labels={"cell": "{model}/{board}/{toolchain}/O{opt_level}"},
            caption="../report/profile-table.rst",
        ),
        figure=report(
            Artifact.PROFILE_FIGURE,
            category="Operators",
            labels={"cell": "{model}/{board}/{toolchain}/O{opt_level}"},
            caption="../report/profile-figure.rst",
        ),
    log:
        Artifact.PROFILE_TABLE.log,
    conda:
        CONDA
    params:
        step=provenance.step("operator_profile"),
    script:
        "../../scripts/operator_profile.py"


rule operator_cycles:
    input:
        record=Artifact.MEASUREMENT.replace("{mode}", "cycles"),
        archive=archive_of,
    output:
        report(
            Artifact.CYCLES_TABLE,
            category="Operators",
            labels={
                "cell": "{model}/{board}/{toolchain}/O{opt_level}",
                "table": "modelled cycles",
            },
            caption="../report/cycles-table.rst",
        ),
    log:
        Artifact.CYCLES_TABLE.log,
    conda:
        CONDA
    params:
        step=provenance.step("operator_cycles"),
    script:
        "../../scripts/operator_cycles.py"
