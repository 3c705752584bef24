"""Rule build_firmware: from a Model Library Format archive to a firmware and its sizes."""

from pathlib import Path

from mcuforge import boards, firmware
from mcuforge.jobs import job

with job(snakemake.log[0]):
    inventory = boards.load(Path(snakemake.config["registries"]["boards"]))
    firmware.build(
        Path(snakemake.input.archive),
        inventory.board(snakemake.wildcards.board),
        snakemake.wildcards.toolchain,
        Path(snakemake.output.elf),
        Path(snakemake.output.sizes),
        benchmark=snakemake.params.benchmark,
        profile=snakemake.params.get("profile", False),
        log=Path(snakemake.log[0]),
    )
