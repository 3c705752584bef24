"""Rule measure: run a firmware on its board or emulator."""

from pathlib import Path

from tqdm import tqdm

from mcuforge import boards, mlf
from mcuforge.jobs import job
from mcuforge.runner.session import Firmware, Plan, measure

with job(snakemake.log[0]) as terminal:
    name = "/".join(snakemake.wildcards)
    bar = tqdm(desc=name, unit="input", file=terminal, mininterval=5, delay=10, leave=False)

    def show(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    registries = snakemake.config["registries"]
    hardware_map = registries.get("hardware_map")
    inventory = boards.load(Path(registries["boards"]), hardware_map and Path(hardware_map))
    archive = mlf.read(Path(snakemake.input.archive))
    measurement = measure(
        Firmware(
            elf=Path(snakemake.input.elf),
            size=Path(snakemake.input.sizes),
            info=archive.info,
            vectors=Path(snakemake.input.vectors),
        ),
        Plan(
            mode=snakemake.wildcards.mode,
            warmup=snakemake.params.measure.get("warmup"),
            iterations=snakemake.params.measure.get("iterations"),
            data_set=Path(snakemake.input.data_set[0]) if snakemake.input.data_set else None,
            quality_target=snakemake.params.quality_target,
        ),
        inventory,
        on_wait=lambda message: print(f"mcuforge: {name}: {message}", file=terminal),
        progress=show,
    )
    measurement.write(Path(snakemake.output[0]))
