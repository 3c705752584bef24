"""Firmware for the emulated boards, each built once a session."""

import dataclasses
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from helpers import fake_mlf
from mcuforge import boards, mlf
from mcuforge.boards import Board
from mcuforge.firmware import builder
from mcuforge.firmware.project import Order, Purpose
from mcuforge.results.columns import Size
from mcuforge.runner import session
from mcuforge.runner.device import Device
from mcuforge.runner.session import Firmware, Plan
from mcuforge.target import Target

INVENTORY = boards.load(Path(__file__).parents[2] / "config" / "boards.yaml")


@dataclass(frozen=True)
class Built:
    """A firmware and what is needed to run it."""

    board: Board
    elf: Path
    size: Path
    info: mlf.Info
    vectors: Path

    def measure(self, **kwargs):
        """Options are fields of `Firmware` and `Plan`, an inventory, or arguments of `measure`."""
        firmware = {"elf": self.elf, "size": self.size, "info": self.info, "vectors": self.vectors}
        firmware |= {name: kwargs.pop(name) for name in firmware if name in kwargs}
        names = [field.name for field in dataclasses.fields(Plan) if field.name in kwargs]
        plan = Plan(**{name: kwargs.pop(name) for name in names})
        inventory = kwargs.pop("inventory", INVENTORY)
        return session.measure(Firmware(**firmware), plan, inventory, **kwargs)

    def device(self):
        (instance,) = INVENTORY.instances(self.board.name)
        return Device(self.board, instance, self.elf, Size.read(self.size).build_id)


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Builds the fake model for a board: ``built("mps2_an500", "gcc", body=...)``."""
    done = {}

    def build(
        board="mps2_an500", toolchain="gcc", benchmark="", mixed=False, profile=False, **source
    ):
        key = (board, toolchain, benchmark, mixed, profile, *sorted(source.items()))
        if key not in done:
            directory = tmp_path_factory.mktemp("firmware")
            archive = directory / "model.tar"
            if mixed:
                fake_mlf.write_mixed(archive)
            else:
                fake_mlf.write(archive, **source)
            elf, size = directory / "firmware.elf", directory / "size.json"
            kind = INVENTORY.board(board)
            target = Target(kind.core)
            for program in (target.emulator[0], f"{target.family.prefix}-gcc"):
                if shutil.which(program) is None:
                    pytest.skip(f"{program} is not installed")
            purpose = Purpose(benchmark=benchmark, profile=profile)
            builder.build(Order(archive, kind, toolchain, purpose), elf, size)
            vectors = fake_mlf.write_vectors(directory / "vectors.npz")
            done[key] = Built(kind, elf, size, mlf.read(archive).info, vectors)
        return done[key]

    return build


def _emulators():
    children = psutil.Process(os.getpid()).children(recursive=True)
    return {child for child in children if "qemu" in child.name()}


@pytest.fixture(autouse=True)
def no_orphans():
    """No test leaves a QEMU behind."""
    before = _emulators()
    yield
    assert _emulators() <= before
