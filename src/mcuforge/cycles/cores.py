"""What each core's pipeline does, as numbers the simulator is given, and how far it is trusted."""

from dataclasses import dataclass

from mcuforge.errors import known
from mcuforge.target import Target


@dataclass(frozen=True)
class Core:
    """A core's pipeline.

    Attributes:
        name: as in GCC's ``-mcpu``.
        version: of this description; results of two versions do not compare.
        error_percent: the largest error expected.
        error_multiples_percent: the same where multiple loads and stores take a tenth of the
            cycles or more.
        pipeline: numbers of the simulator's ``struct core``, which says what they mean.
    """

    name: str
    version: int
    error_percent: float
    error_multiples_percent: float
    pipeline: dict[str, int]

    @property
    def model(self) -> str:
        """Name and version, as in ``cortex-m7/1``."""
        return f"{self.name}/{self.version}"

    def error(self, multiples: float, floats: float) -> float | None:
        """The largest error expected of a prediction, in percent of it; None if it is not known.

        Args:
            multiples: the share of cycles spent in multiple loads and stores.
            floats: the share of instructions that compute in floating point, whose latencies are
                not measured.
        """
        if floats >= _MANY_FLOATS:
            return None
        return self.error_multiples_percent if multiples >= _MANY_MULTIPLES else self.error_percent


# From these shares on, the instructions say how far a prediction can be trusted.
_MANY_MULTIPLES, _MANY_FLOATS = 0.1, 0.01
_CORES = (
    # Measured on silicon by jnk0le/random, cortex_m7.md. Compared with ten published results, of
    # firmware that holds few multiple loads: docs/cycles.md.
    Core(
        "cortex-m7",
        1,
        5.0,
        8.0,
        {
            "dual_issue": 1,
            "fetch_bytes": 8,
            "fetch_queue": 32,
            "misprediction": 8,
            "early_flags": 2,
            "multiple_registers": 2,
            "load_unaligned": 3,
            "divide": 6,
        },
    ),
    # Arm DDI 0439, the table of cycles in "Processor instructions".
    Core(
        "cortex-m4",
        1,
        8.0,
        8.0,
        {
            "dual_issue": 0,
            "taken_branch": 2,
            "multiple_registers": 1,
            "multiple_setup": 1,
            "load_alone": 1,
            "load_unaligned": 1,
            "divide": 6,
        },
    ),
)
CORES = {core.name: core for core in _CORES}


def core(mcpu: str) -> Core:
    """The description of a core, named as in GCC's ``-mcpu``; ConfigError if there is none."""
    return CORES[known("core", Target(mcpu).core, CORES, "modelled cycles: ")]
