"""Builds the bare-metal project of a firmware."""

import os
from pathlib import Path

from mcuforge import toolchains
from mcuforge.firmware import commands, size
from mcuforge.firmware import project as projects
from mcuforge.firmware.project import Built, Order


def build(order: Order, root: Path) -> Built:
    """Generate the project in the empty directory `root` and build it there."""
    cmake, ninja = toolchains.find("cmake"), toolchains.find("ninja")
    board, log = order.board, order.log
    tools = toolchains.toolchain(order.toolchain, board.core)
    generated = projects.generate(order.archive, board, tools, root, order.purpose)
    build_root = root / "build"
    configure = [cmake, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}", "-S", str(root)]
    configure += ["-B", str(build_root), f"-DCMAKE_TOOLCHAIN_FILE={root / 'toolchain.cmake'}"]
    commands.run(configure, log)
    make = [cmake, "--build", str(build_root), "--parallel", str(os.cpu_count() or 1)]
    try:
        commands.run(make, log)
    except commands.TooLargeError:
        projects.enlarge(generated, board)
        commands.run(make, log)
    elf = build_root / "firmware.elf"
    used = size.usage(elf, board, generated.info.weights_bytes)
    return Built(generated, elf, used, tools.version)
