"""The command ``mcuforge``: single steps by hand. The whole grid is Snakemake's.

Each command imports what it needs, so that none waits for another's: TVM alone takes a second.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mcuforge import __version__
from mcuforge.errors import ConfigError, McuforgeError, one_line

if TYPE_CHECKING:
    from mcuforge.target import Target

_CONFIG = Path("config")
_HARDWARE_MAP = _CONFIG / "hardware-map.yaml"
# What comes with mcuforge; in the repository these are links to its config/.
_SHIPPED = Path(__file__).parent / "registries"


def _registry(name: str) -> Path:
    """The registry `name` of the working directory's ``config``, or else the shipped one."""
    own = _CONFIG / name
    return own if own.exists() else _SHIPPED / name


def _models(arguments: argparse.Namespace) -> None:
    from mcuforge.models import registry

    for model in registry.load(arguments.registry).values():
        print(f"{model.name:12} {model.title}")


def _fetch(arguments: argparse.Namespace) -> None:
    from mcuforge.models import fetch, registry

    model = registry.get(registry.load(arguments.registry), arguments.model)
    output = arguments.output or Path(f"{model.name}.tflite")
    fetch.fetch(model, output)
    print(output)


def _describe(arguments: argparse.Namespace) -> None:
    from mcuforge import formats

    model: Path = arguments.file
    facts = formats.of(model).describe(formats.read(model), model.stem)
    for kind, tensors in (("input", facts.inputs), ("output", facts.outputs)):
        for tensor in tensors:
            quantization = ""
            if tensor.scale is not None:
                quantization = f", scale {tensor.scale:.6g}, zero point {tensor.zero_point}"
            shape = "x".join(map(str, tensor.shape))
            print(f"{kind:8} {tensor.name}: {tensor.dtype} {shape}{quantization}")
    for operator in facts.operators:
        print(f"{operator.index:8} {operator.op:24} {operator.macs or '':>12}")
    print(f"{facts.macs:,} multiply-accumulates, {facts.bytes:,} bytes, sha256 {facts.sha256}")


def _compile(arguments: argparse.Namespace) -> None:
    from mcuforge import files
    from mcuforge.compiler import compile_model
    from mcuforge.target import Target

    name = arguments.file.stem if arguments.name is None else arguments.name
    output = arguments.output or Path(f"{name}.tar")
    target = Target.parse(arguments.target)
    with files.atomic(output) as temporary:
        compile_model(arguments.file, name, target, arguments.opt_level, temporary)
        if arguments.check:
            print(_check(arguments.file, name, target, arguments.opt_level, temporary))
    print(output)


def _check(model: Path, name: str, target: Target, opt_level: int, archive: Path) -> str:
    """Check an archive, or in place of an object file the C of the same kernels."""
    from mcuforge.check import check_model
    from mcuforge.compiler import compile_model

    if target.codegen == "c":
        return check_model(archive, model)
    with tempfile.TemporaryDirectory(prefix="mcuforge-") as directory:
        portable = Path(directory) / "model.tar"
        compile_model(model, name, dataclasses.replace(target, codegen="c"), opt_level, portable)
        return (
            f"{check_model(portable, model)} (the same kernels as C: the object runs on Arm only)"
        )


def _project(arguments: argparse.Namespace) -> None:
    from mcuforge import boards, mlf
    from mcuforge.firmware import builder, project

    board = None
    if arguments.board:
        board = boards.load(arguments.boards).board(arguments.board)
        if board.platform != arguments.platform:
            raise ConfigError(
                f"{board.name} is a board for the platform {board.platform}",
                f"use --platform {board.platform}",
            )
    elif arguments.platform == "baremetal":
        core = mlf.read(arguments.archive).info.core
        types = boards.load(arguments.boards).types.values()
        known = [t for t in types if t.platform == "baremetal"]
        board = next((t for t in known if t.core == core), None)
        if board is None:
            names = ", ".join(t.name for t in known)
            raise ConfigError(f"no bare-metal board has the core {core}", f"--board: {names}")
    samples = project.read_samples(arguments.samples) if arguments.samples else None
    purpose = project.Purpose(arguments.type, samples, arguments.benchmark)
    builder.generate(arguments.archive, arguments.directory, board, arguments.toolchain, purpose)
    print(arguments.directory)


def _show_boards(arguments: argparse.Namespace) -> None:
    from mcuforge import boards
    from mcuforge.boards import detection

    hardware_map = arguments.map or _HARDWARE_MAP
    if arguments.detect:
        found = detection.detect(boards.load(arguments.boards))
        detection.update(hardware_map, found)
        print(f"boards found: {len(found)}; {hardware_map} is up to date")
    there = arguments.map or hardware_map.exists()
    inventory = boards.load(arguments.boards, hardware_map if there else None)
    for board in inventory.types.values():
        means = f"QEMU {board.machine}" if board.emulated else ", ".join(board.runners)
        print(f"{board.name:20} {board.core:12} {board.platform:10} {means}")
        listed = [i for i in inventory.bench if i.board == board.name]
        for instance in listed or inventory.instances(board.name):
            place = f" at {instance.serial}" if instance.serial else ""
            print(f"    {instance.id}{place}: {detection.availability(instance)}")


def _add_registry(parser: argparse.ArgumentParser, option: str, name: str) -> None:
    says = f"default: {_CONFIG / name}, where there is none the one that comes with mcuforge"
    parser.add_argument(option, type=Path, default=_registry(name), metavar="FILE", help=says)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mcuforge", description=__doc__.partition("\n")[0])
    parser.add_argument("--version", action="version", version=f"mcuforge {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    models = commands.add_parser("models", help="list the registered models")
    _add_registry(models, "--registry", "models.yaml")
    models.set_defaults(run=_models)

    get = commands.add_parser("fetch", help="get a registered model")
    get.add_argument("model")
    get.add_argument("-o", "--output", type=Path)
    _add_registry(get, "--registry", "models.yaml")
    get.set_defaults(run=_fetch)

    show = commands.add_parser("describe", help="what is in a .tflite file")
    show.add_argument("file", type=Path)
    show.set_defaults(run=_describe)

    make = commands.add_parser("compile", help="compile a .tflite file to a .tar of C sources")
    make.add_argument("file", type=Path)
    make.add_argument("--target", default="cortex-m7-c", help="core-codegen (%(default)s)")
    make.add_argument("-O", "--opt-level", type=int, choices=range(5), default=3)
    make.add_argument("--name", help="of the model in the generated code; default: the file's")
    make.add_argument("-o", "--output", type=Path)
    make.add_argument(
        "--check",
        action="store_true",
        help="build the code for this machine too, and compare what it answers with LiteRT",
    )
    make.set_defaults(run=_compile)

    project = commands.add_parser("project", help="write a firmware project for a compiled model")
    project.add_argument("archive", type=Path, help="what compile wrote")
    project.add_argument("directory", type=Path, help="does not exist yet")
    project.add_argument(
        "--type",
        choices=("standalone", "mlperftiny"),
        default="standalone",
        help="runs samples by itself, or speaks MLPerf Tiny's serial protocol (%(default)s)",
    )
    project.add_argument("--platform", choices=("zephyr", "baremetal"), default="zephyr")
    project.add_argument("--board", help="of --boards; bare metal: default is the first that fits")
    project.add_argument("--toolchain", default="gcc", help="for bare metal (%(default)s)")
    project.add_argument(
        "--samples",
        type=Path,
        help="the .tflite, or its .vectors.npz: inputs with LiteRT's answers, which the firmware "
        "checks; default: random inputs",
    )
    project.add_argument("--benchmark", default="", help="MLPerf Tiny's id it reports, as kws01")
    _add_registry(project, "--boards", "boards.yaml")
    project.set_defaults(run=_project)

    bench = commands.add_parser("boards", help="list board types and the boards on this bench")
    bench.add_argument(
        "--detect", action="store_true", help="find attached boards by USB, update the hardware map"
    )
    bench.add_argument("--map", type=Path, help=f"the hardware map; default: {_HARDWARE_MAP}")
    _add_registry(bench, "--boards", "boards.yaml")
    bench.set_defaults(run=_show_boards)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; errors are one line on stderr, and status 1."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except (McuforgeError, OSError) as error:
        print(f"mcuforge: error: {one_line(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
