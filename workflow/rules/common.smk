# Reads and validates the configuration once; the named input functions of the rules.
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

# The library beside these rules, also where another workflow uses them as a module.
sys.path.insert(0, str(Path(str(workflow.current_basedir)).parents[1] / "src"))

from mcuforge import firmware, jobs, provenance
from mcuforge.errors import McuforgeError, ToolError
from mcuforge.experiment import Experiment
from mcuforge.firmware import workspace, zephyr

jobs.announce()


def load_experiment():
    try:
        return Experiment(config)
    except McuforgeError as error:
        logger.error(f"mcuforge: error: {error}")
        sys.exit(1)


def toolchain_version(wildcards):
    try:
        return firmware.toolchain_version(wildcards.toolchain)
    except ToolError as error:
        return str(error)  # the build says so, if it comes to that


def zephyr_version(wildcards):
    board = EXPERIMENT.inventory.board(wildcards.board)
    return zephyr.version(board, wildcards.toolchain) if board.platform == "zephyr" else None


def archive_of(wildcards):
    try:
        target = EXPERIMENT.target(wildcards.board, wildcards.toolchain)
    except McuforgeError as error:
        raise WorkflowError(str(error)) from None
    return f"results/mlf/{wildcards.model}/{target}/O{wildcards.opt_level}.tar"


def firmware_of(wildcards):
    names = {"elf": "firmware.elf", "sizes": "size.json"}
    if wildcards.mode == "profile":
        names = {"elf": "profile.elf", "sizes": "profile.json"}
    path = "results/firmware/{model}/{board}/{toolchain}/O{opt_level}/{name}"
    return {key: path.format(name=name, **wildcards) for key, name in names.items()}


def refuse(wildcards):
    raise WorkflowError(str(EXPERIMENT.explain(wildcards.impossible)))


def data_set_of(wildcards):
    if wildcards.mode != "accuracy":
        return []
    try:
        return [EXPERIMENT.data_set_file(wildcards.model)]
    except McuforgeError as error:
        raise WorkflowError(str(error)) from None


def measurements():
    return [f"results/bench/{cell}/{mode}.json" for cell, mode in EXPERIMENT.results]


def archives():
    return list(
        dict.fromkeys(
            f"results/mlf/{c.model}/{EXPERIMENT.target(c.board, c.toolchain)}/O{c.opt_level}.tar"
            for c in EXPERIMENT.cells
        )
    )


def tables():
    return expand("results/tables/{table}.csv", table=["levels", "boards"])


def best_profiles(wildcards):
    from mcuforge.results import summary  # loads pandas, which planning does without

    rows = summary.read(Path(checkpoints.summary.get().output[0]))
    return expand("results/profile/{cell}.csv", cell=summary.cells(summary.best(rows)))


def profiles():
    cells = EXPERIMENT.cells if "profile" in config["modes"] else ()
    return expand("results/profile/{cell}.{kind}", cell=cells, kind=["csv", "svg"])


def figures():
    return expand(
        "results/figures/{model}.{figure}.svg",
        model=config["models"],
        figure=["levels", "memory"],
    ) + ["results/figures/boards.svg"]


def uses_board(name):
    """A job's share of a type of board: as many run at a time as boards of it are connected."""
    boards = max(1, len(EXPERIMENT.inventory.instances(name)))
    return lambda wildcards: BOARD_SHARES // boards if wildcards.board == name else 0


if workflow.is_main_process:
    ALIVE = jobs.forget_dead_runs(Path(".snakemake"))

EXPERIMENT = load_experiment()
ZEPHYR_WORKSPACE = Path("zephyr-workspace")
workspace.announce(config.get("zephyr_base"), ZEPHYR_WORKSPACE)
CONDA = "../../envs/environment.yaml"
BOARD_SHARES = 60  # the limit of each type in the default profile

for note in EXPERIMENT.notes if workflow.is_main_process else ():
    logger.warning(note)


wildcard_constraints:
    **EXPERIMENT.constraints(),
    impossible=EXPERIMENT.impossible(),
