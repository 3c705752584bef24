localrules:
    operator_profile,


rule operator_profile:
    input:
        record="results/bench/{model}/{board}/{toolchain}/O{opt_level}/profile.json",
        whole="results/bench/{model}/{board}/{toolchain}/O{opt_level}/performance.json",
        archive=archive_of,
    output:
        table=report(
            "results/profile/{model}/{board}/{toolchain}/O{opt_level}.csv",
            category="Operators",
            labels={"cell": "{model}/{board}/{toolchain}/O{opt_level}"},
            caption="../report/profile-table.rst",
        ),
        figure=report(
            "results/profile/{model}/{board}/{toolchain}/O{opt_level}.svg",
            category="Operators",
            labels={"cell": "{model}/{board}/{toolchain}/O{opt_level}"},
            caption="../report/profile-figure.rst",
        ),
    log:
        "results/logs/profile/{model}/{board}/{toolchain}/O{opt_level}.log",
    conda:
        CONDA
    params:
        step=provenance.step("operator_profile", "results/profile", "results/figures"),
    script:
        "../../scripts/operator_profile.py"
