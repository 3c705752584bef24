localrules:
    all,
    summary,
    tables,
    calibration,
    model_figures,
    board_figure,


checkpoint summary:
    input:
        measurements(),
    output:
        report(Artifact.SUMMARY, category="Results", caption="../report/summary.rst"),
    log:
        Artifact.SUMMARY.log,
    conda:
        CONDA
    params:
        step=provenance.step("summary"),
    script:
        "../../scripts/summary.py"


rule tables:
    input:
        Artifact.SUMMARY,
    output:
        levels=report(
            Artifact.LEVELS_TABLE, category="Results", caption="../report/levels-table.rst"
        ),
        boards=report(
            Artifact.BOARDS_TABLE, category="Results", caption="../report/boards-table.rst"
        ),
    log:
        Artifact.LEVELS_TABLE.log,
    conda:
        CONDA
    params:
        step=provenance.step("tables"),
    script:
        "../../scripts/tables.py"


rule calibration:
    input:
        Artifact.SUMMARY,
    output:
        report(
            Artifact.CALIBRATION_TABLE,
            category="Results",
            caption="../report/calibration-table.rst",
        ),
    log:
        Artifact.CALIBRATION_TABLE.log,
    conda:
        CONDA
    params:
        step=provenance.step("calibration"),
    script:
        "../../scripts/calibration.py"


rule model_figures:
    input:
        Artifact.SUMMARY,
    output:
        levels=report(
            Artifact.LEVELS_FIGURE,
            category="Speed",
            labels={"model": "{model}", "figure": "levels"},
            caption="../report/levels-figure.rst",
        ),
        memory=report(
            Artifact.MEMORY_FIGURE,
            category="Memory",
            labels={"model": "{model}", "figure": "memory"},
            caption="../report/memory-figure.rst",
        ),
    log:
        Artifact.LEVELS_FIGURE.log,
    conda:
        CONDA
    params:
        step=provenance.step("model_figures"),
    script:
        "../../scripts/model_figures.py"


rule board_figure:
    input:
        Artifact.SUMMARY,
    output:
        report(
            Artifact.BOARDS_FIGURE,
            category="Speed",
            labels={"model": "all", "figure": "boards"},
            caption="../report/boards-figure.rst",
        ),
    log:
        Artifact.BOARDS_FIGURE.log,
    conda:
        CONDA
    params:
        step=provenance.step("board_figure"),
    script:
        "../../scripts/board_figure.py"
