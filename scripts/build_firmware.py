"""Rule build_firmware: from a Model Library Format archive to a firmware and its sizes."""

from pathlib import Path

from mcuforge import boards
from mcuforge.firmware.builder import build
from mcuforge.firmware.project import Order, Purpose
from mcuforge.jobs import job

with job(snakemake.log[0]):
    inventory = boards.load(Path(snakemake.config["registries"]["boards"]))
    order = Order(
        archive=Path(snakemake.input.archive),
        board=inventory.board(snakemake.wildcards.board),
        toolchain=snakemake.wildcards.toolchain,
        purpose=Purpose(
            benchmark=snakemake.params.benchmark, profile=snakemake.params.get("profile", False)
        ),
        log=Path(snakemake.log[0]),
    )
    build(order, Path(snakemake.output.elf), Path(snakemake.output.sizes))
