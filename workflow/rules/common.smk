# Reads and checks the configuration once. Defines the input functions of the rules.
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

# The library is the one beside these rules, also where another workflow uses them as a module.
sys.path.insert(0, str(Path(str(workflow.current_basedir)).parents[1] / "src"))

from mcuforge import jobs, provenance, toolchains
from mcuforge.artifacts import Artifact
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
    core = EXPERIMENT.inventory.board(wildcards.board).core
    try:
        return toolchains.version(wildcards.toolchain, core)
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
    return Artifact.ARCHIVE.format(target=target, **wildcards)


def check_of(wildcards):
    # An object file runs on its core only: the C of the same kernels stands in for it.
    core = EXPERIMENT.inventory.board(wildcards.board).core
    return Artifact.CHECK.format(target=f"{core}-c", **wildcards)


def firmware_of(wildcards):
    elf, sizes = Artifact.FIRMWARE, Artifact.SIZE
    if wildcards.mode == "profile":
        elf, sizes = Artifact.PROFILE_FIRMWARE, Artifact.PROFILE_SIZE
    return {"elf": elf.format(**wildcards), "sizes": sizes.format(**wildcards)}


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
    return [Artifact.MEASUREMENT.format(**vars(cell), mode=m) for cell, m in EXPERIMENT.results]


def tables():
    modelled = {cell.board for cell, mode in EXPERIMENT.results if mode == "cycles"}
    calibrated = modelled.intersection(EXPERIMENT.physical_boards)
    found = [Artifact.LEVELS_TABLE, Artifact.BOARDS_TABLE]
    return found + [Artifact.CALIBRATION_TABLE] * bool(calibrated)


def best_profiles(wildcards):
    from mcuforge.results import summary  # loads pandas, which planning does without

    rows = summary.best(summary.read(Path(checkpoints.summary.get().output[0])))
    return [Artifact.PROFILE_TABLE.format(**row) for row in rows.to_dict("records")]


def profiles():
    cells = EXPERIMENT.cells if "profile" in config["modes"] else ()
    wanted = (Artifact.PROFILE_TABLE, Artifact.PROFILE_FIGURE)
    modelled = [cell for cell, mode in EXPERIMENT.results if mode == "cycles"]
    return [artifact.format(**vars(cell)) for cell in cells for artifact in wanted] + [
        Artifact.CYCLES_TABLE.format(**vars(cell)) for cell in modelled
    ]


def figures():
    of_model = (Artifact.LEVELS_FIGURE, Artifact.MEMORY_FIGURE)
    return expand(of_model, model=config["models"]) + [Artifact.BOARDS_FIGURE]


def uses_board(name):
    """A job's share of a type of board: as many run at a time as boards of it are connected.

    What a model predicts takes no board.
    """
    boards = max(1, len(EXPERIMENT.inventory.instances(name)))
    share = BOARD_SHARES // boards
    return lambda wildcards: share * (wildcards.board == name and wildcards.mode != "cycles")


if workflow.is_main_process:
    ALIVE = jobs.forget_dead_runs(Path(".snakemake"))

EXPERIMENT = load_experiment()
workspace.announce(config.get("zephyr_base"), Path(Artifact.ZEPHYR_WORKSPACE).parents[1])
CONDA = "../../envs/environment.yaml"
BOARD_SHARES = 60  # the limit of each type in the default profile

for note in EXPERIMENT.notes if workflow.is_main_process else ():
    logger.warning(note)


wildcard_constraints:
    **EXPERIMENT.constraints(),
