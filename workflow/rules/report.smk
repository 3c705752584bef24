localrules:
    all,
    summary,
    tables,
    model_figures,
    board_figure,


checkpoint summary:
    input:
        measurements=measurements(),
        archives=archives(),
    output:
        report("results/summary.csv", category="Results", caption="../report/summary.rst"),
    log:
        "results/logs/summary.log",
    conda:
        CONDA
    params:
        step=provenance.step("summary", "results/summary"),
    script:
        "../../scripts/summary.py"


rule tables:
    input:
        "results/summary.csv",
    output:
        levels=report(
            "results/tables/levels.csv", category="Results", caption="../report/levels-table.rst"
        ),
        boards=report(
            "results/tables/boards.csv", category="Results", caption="../report/boards-table.rst"
        ),
    log:
        "results/logs/tables.log",
    conda:
        CONDA
    params:
        step=provenance.step("tables", "results/tables"),
    script:
        "../../scripts/tables.py"


rule model_figures:
    input:
        "results/summary.csv",
    output:
        levels=report(
            "results/figures/{model}.levels.svg",
            category="Speed",
            labels={"model": "{model}", "figure": "levels"},
            caption="../report/levels-figure.rst",
        ),
        memory=report(
            "results/figures/{model}.memory.svg",
            category="Memory",
            labels={"model": "{model}", "figure": "memory"},
            caption="../report/memory-figure.rst",
        ),
    log:
        "results/logs/figures/{model}.log",
    conda:
        CONDA
    params:
        step=provenance.step("model_figures", "results/figures"),
    script:
        "../../scripts/model_figures.py"


rule board_figure:
    input:
        "results/summary.csv",
    output:
        report(
            "results/figures/boards.svg",
            category="Speed",
            labels={"model": "all", "figure": "boards"},
            caption="../report/boards-figure.rst",
        ),
    log:
        "results/logs/figures/boards.log",
    conda:
        CONDA
    params:
        step=provenance.step("board_figure", "results/figures"),
    script:
        "../../scripts/board_figure.py"
