from snakemake.utils import min_version

min_version("9.0")


configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/compile.smk"
include: "workflow/rules/firmware.smk"
include: "workflow/rules/bench.smk"
include: "workflow/rules/profile.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/performance.smk"


rule all:
    default_target: True
    input:
        Artifact.SUMMARY,
        tables(),
        figures(),
        profiles(),
