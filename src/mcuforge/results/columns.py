"""Every column of every record and table, once: its name, type, source and meaning.

The sources are

- ``build``: building a firmware;
- ``firmware``: the `Size` of the firmware that ran;
- ``archive``: `mlf.Info`, the facts of the compiled model;
- ``board``: `boards.Board`, the board's type;
- ``plan``: `runner.session.Plan`, what was asked for;
- ``run``: what running it showed.

A new column is a line here, and a value where its source comes from.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal, TypedDict, get_args

from mcuforge.results.records import (
    Amount,
    BuildId,
    Column,
    Count,
    Fraction,
    Hex,
    Positive,
    Record,
    Sha256,
    Text,
)

Mode = Literal["setup", "performance", "accuracy", "profile", "cycles"]
# MLPerf Tiny's modes, as far as they can be measured, and our own.
MODES: tuple[str, ...] = get_args(Mode)
NO_ENERGY = (
    "energy takes a power monitor (LPM01A, JS220), an interface board on the device's serial port "
    "and time pin, and MLCommons' own runner; see docs/protocol.md"
)


class Lap(TypedDict):
    """The reply to one ``infer``: ticks are of all iterations, the latency is their mean."""

    input: Count
    iterations: Positive
    ticks: Count
    ticks_min: Count
    ticks_max: Count
    latency_us: Amount


class Causes(TypedDict):
    """Modelled cycles by their cause, as ``docs/cycles.md`` explains.

    `multiples` are in `issue`, `floats` in `instructions`.
    """

    instructions: Count
    cycles: Count
    issue: Count
    dependency: Count
    fetch: Count
    data_misses: Count
    instruction_misses: Count
    branches: Count
    multiples: Count
    floats: Count


from_build = partial(Column, "build")
from_firmware = partial(Column, "firmware")
from_archive = partial(Column, "archive")
from_board = partial(Column, "board")
from_plan = partial(Column, "plan")
from_run = partial(Column, "run")


@dataclass(frozen=True, kw_only=True)
class Size(Record):
    """What a firmware needs of its board's memories: ``size.json``."""

    model: Annotated[Text, from_build("the model")]
    board: Annotated[Text, from_build("the type of board")]
    toolchain: Annotated[Text, from_build("what compiled and linked the firmware")]
    toolchain_version: Annotated[Text, from_build("as in `gcc 12.2.1`")]
    opt_level: Annotated[Count, from_build("TVM's optimization level")]
    build_id: Annotated[BuildId, from_build("hash of all that is in the firmware")]
    flash_bytes: Annotated[Count, from_build("everything that is stored in flash")]
    ram_bytes: Annotated[Count, from_build("data, workspace, buffers and the reserved stack")]
    code_bytes: Annotated[
        Count,
        from_build("text and constants of the generated code and of library functions it calls"),
    ]
    weights_bytes: Annotated[Count, from_build("the compiled model's constants")]
    workspace_bytes: Annotated[Count, from_build("the model's intermediate tensors")]
    stack_reserved_bytes: Annotated[Count, from_build("what the board sets aside for the stack")]
    stack_bound_bytes: Annotated[
        Count | None,
        from_build("static bound on the stack of one inference; null if it is not known"),
    ]
    sections: Annotated[dict[str, Count], from_build("size of each section of the ELF file")]
    fits: Annotated[bool, from_build("whether the board's memories are large enough")]
    missing_flash_bytes: Annotated[Count, from_build("flash the board lacks")]
    missing_ram_bytes: Annotated[Count, from_build("RAM the board lacks")]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the summary: one cell of the grid."""

    model: Annotated[Text, from_firmware("the model, as `config/models.yaml` calls it")]
    board: Annotated[Text, from_firmware("the type of board, as `config/boards.yaml` calls it")]
    platform: Annotated[Literal["baremetal", "zephyr"], from_board("what the firmware is built on")]
    core: Annotated[Text, from_board("the board's core, as in GCC's `-mcpu`")]
    toolchain: Annotated[Text, from_firmware("what compiled and linked the firmware")]
    opt_level: Annotated[Count, from_firmware("TVM's optimization level")]
    executor: Annotated[
        Text, from_archive("how the model's operators are called: `aot`, as one function")
    ]
    timebase: Annotated[
        Literal["instructions", "hardware", "model"],
        from_run(
            "`instructions` (counted by QEMU), `hardware` (measured) or `model` (predicted, and "
            "nothing else is there); they do not compare"
        ),
    ]
    instructions: Annotated[
        Positive | None, from_run("of one inference, median; empty on hardware")
    ] = None
    latency_us: Annotated[
        Amount | None,
        from_run("of one inference, median; 10⁹ instructions a second where emulated"),
    ] = None
    inferences_per_second: Annotated[Amount | None, from_run("the inverse of the latency")] = None
    macs: Annotated[
        Count,
        from_archive(
            "multiply-accumulates of one inference as the model states them", name="macs_nominal"
        ),
    ]
    macs_executed: Annotated[
        Count, from_archive("those left after channels without weights are removed")
    ]
    per_mac: Annotated[
        Amount | None, from_run("instructions, or cycles on hardware, for each of `macs`")
    ] = None
    cycles_modelled: Annotated[
        Positive | None,
        from_run(
            "of one inference, predicted by a model of the core (mode `cycles`), not measured"
        ),
    ] = None
    latency_modelled_us: Annotated[
        Amount | None, from_run("the time they take, predicted, not measured")
    ] = None
    cycles_error_percent: Annotated[
        Amount | None, from_run("the largest error expected of them; empty if it is not known")
    ] = None
    cycles_model: Annotated[
        Text | None, from_run("what predicted them, with its version: `cortex-m7/1`")
    ] = None
    cycles_memory: Annotated[
        Text | None, from_run("the memory that the prediction assumes, as `boards.yaml` says")
    ] = None
    flash_bytes: Annotated[Count, from_firmware("flash of the whole firmware")]
    code_bytes: Annotated[Count, from_firmware("the model's generated code, without weights")]
    weights_bytes: Annotated[Count, from_firmware("the compiled model's constants")]
    model_weights_bytes: Annotated[Count, from_archive("the constants in the model file")]
    ram_bytes: Annotated[Count, from_firmware("RAM of the whole firmware, stack included")]
    workspace_bytes: Annotated[Count, from_firmware("what the model's intermediate tensors take")]
    workspace_lower_bound_bytes: Annotated[
        Count, from_archive("the largest set of them that live at once")
    ]
    stack_bytes: Annotated[Count | None, from_run("the stack's high-water mark, measured")] = None
    exact: Annotated[
        bool | None, from_run("whether all outputs equal the oracle's, byte for byte")
    ] = None
    max_abs_error: Annotated[
        Amount | None, from_run("the largest difference of any output element")
    ] = None
    accuracy: Annotated[
        Fraction | None,
        from_run("of a data set: the share of labels predicted, for ad01 the area under the curve"),
    ] = None
    quality_target: Annotated[Fraction | None, from_plan("the accuracy MLPerf Tiny asks for")] = (
        None
    )
    valid: Annotated[bool | None, from_run("whether the accuracy reaches the target")] = None
    status: Annotated[
        Literal["ok", "mismatch", "does_not_fit"],
        from_run("`ok`, `mismatch` (ran, outputs differ) or `does_not_fit`"),
    ]
    missing_flash_bytes: Annotated[
        Count, from_firmware("flash the board lacks for a firmware that does not fit")
    ]
    missing_ram_bytes: Annotated[Count, from_firmware("RAM it lacks")]
    tvm_version: Annotated[Text, from_archive("of TVM, which compiled the model")]
    toolchain_version: Annotated[Text, from_firmware("of what built the firmware")]
    emulator_version: Annotated[
        Text | None, from_run("of what ran it; empty on hardware, and of predictions")
    ] = None
    build_id: Annotated[
        BuildId,
        from_firmware(
            "hash of all that is in the firmware; checked on the board before it is measured"
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class Measurement(Row, Record):
    """One measurement of one firmware on one board: its row, and what it rests on."""

    mode: Annotated[Mode, from_plan("MLPerf Tiny's mode, `profile` or `cycles`")]
    clock_hz: Annotated[Positive, from_board("the board's clock, hertz")]
    mcuforge_version: Annotated[
        Text, from_archive("what compiled the model", name="compiler_version")
    ]
    started: Annotated[Text, from_run("UTC, ISO 8601")]
    duration_s: Annotated[Amount, from_run("of the whole measurement")]
    board_instance: Annotated[Text | None, from_run("the board that ran it")] = None
    laps: Annotated[list[Lap], from_run("one for each `infer` of the timed inputs, in order")] = (
        field(default_factory=list)
    )
    operators: Annotated[
        list[Count],
        from_run(
            "of each operator in mode profile, instructions or cycles, without what counting takes"
        ),
    ] = field(default_factory=list)
    causes: Annotated[
        Causes | None, from_run("modelled cycles of the inference by cause; in mode cycles")
    ] = None
    operator_causes: Annotated[
        list[Causes], from_run("of each operator; what is between operators is in none")
    ] = field(default_factory=list)
    inputs_sha256: Annotated[
        list[Sha256],
        from_run("of the bytes of the input tensors, for each inference or lap in order"),
    ] = field(default_factory=list)
    outputs: Annotated[list[Hex], from_run("of each lap, hexadecimal")] = field(
        default_factory=list
    )
    dataset_sha256: Annotated[Sha256 | None, from_run("of the data set, as in models.yaml")] = None
    predictions: Annotated[
        list[Count], from_run("the class of the largest output, the first of equals, for each file")
    ] = field(default_factory=list)
    scores: Annotated[list[Amount], from_run("for ad01, of each file")] = field(
        default_factory=list
    )


@dataclass(frozen=True, kw_only=True)
class Operator:
    """A row of a profile: one operator of one cell, in the order they run."""

    index: Annotated[Count, from_run("the operator's place in the compiled model")]
    operator: Annotated[Text, from_archive("its name", name="op")]
    shape: Annotated[Text, from_run("of its result")]
    macs: Annotated[
        Count | None,
        from_archive(
            "multiply-accumulates as the model states them; empty where it has no counterpart",
            name="macs_nominal",
        ),
    ]
    macs_executed: Annotated[Count, from_archive("those the code executes", name="macs")]
    products: Annotated[
        Text | None,
        from_archive(
            "of 8-bit inputs: `dense`, with weights of many output channels; `depthwise`, of their "
            "own channel; empty without such products"
        ),
    ]
    timebase: Annotated[Literal["instructions", "hardware"], from_run("as in the summary")]
    count: Annotated[
        Count, from_run("instructions, or cycles on hardware, without what counting them takes")
    ]
    share: Annotated[Fraction | None, from_run("of all operators")]
    per_mac: Annotated[Amount | None, from_run("`count` for each of `macs_executed`")]
    inference: Annotated[Count | None, from_run("the whole inference, measured without profiling")]


from_causes = partial(Column, "causes")


@dataclass(frozen=True, kw_only=True)
class OperatorCycles:
    """A row of modelled cycles: one operator of one cell, in the order they run."""

    index: Annotated[Count, from_run("the operator's place in the compiled model")]
    operator: Annotated[Text, from_archive("its name", name="op")]
    shape: Annotated[Text, from_run("of its result")]
    macs_executed: Annotated[Count, from_archive("multiply-accumulates it executes", name="macs")]
    cycles_model: Annotated[Text, from_run("what predicted all that follows, as in the summary")]
    cycles_modelled: Annotated[Count, from_causes("predicted, not measured", name="cycles")]
    share: Annotated[Fraction | None, from_run("of the whole inference")]
    per_mac: Annotated[Amount | None, from_run("`cycles_modelled` for each of `macs_executed`")]
    instructions: Annotated[Count, from_causes("executed")]
    issue: Annotated[Count, from_causes("cycles in which the pipeline has work")]
    dependency: Annotated[Count, from_causes("cycles waiting for operands")]
    fetch: Annotated[Count, from_causes("cycles waiting for instructions after taken branches")]
    data_misses: Annotated[Count, from_causes("cycles waiting for lines of data")]
    instruction_misses: Annotated[Count, from_causes("cycles waiting for lines of code")]
    branches: Annotated[Count, from_causes("cycles of refilling the pipeline")]
    multiples: Annotated[Count, from_causes("of `issue`, multiple loads and stores")]
