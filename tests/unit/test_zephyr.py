"""Zephyr applications and how they are built, as far as that goes without a Zephyr tree."""

import ctypes
import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from helpers import fake_mlf, tflite_graphs, tiny
from mcuforge import boards, cli, toolchains
from mcuforge.errors import ConfigError, McuforgeError, ToolError
from mcuforge.firmware import builder, workspace, zephyr
from mcuforge.firmware.project import (
    DEVICE,
    KINDS,
    TEMPLATES,
    Order,
    Purpose,
    Samples,
    read_samples,
)

INVENTORY = boards.load(Path(__file__).parents[2] / "config" / "boards.yaml")
NUCLEO = INVENTORY.board("nucleo_h743zi")
AN500 = INVENTORY.board("zephyr_mps2_an500")


@pytest.fixture
def archive(tmp_path):
    return fake_mlf.write(tmp_path / "model.tar")


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """What counts as a Zephyr tree: its file VERSION."""
    path = tmp_path / "workspace" / "zephyr"
    path.mkdir(parents=True)
    path.joinpath("VERSION").write_text(
        "VERSION_MAJOR = 3\nVERSION_MINOR = 7\nPATCHLEVEL = 1\nVERSION_TWEAK = 0\nEXTRAVERSION =\n"
    )
    monkeypatch.setenv("ZEPHYR_BASE", str(path))
    return path


@pytest.fixture
def west(tmp_path, monkeypatch):
    """A program west that does what its test says, in shell."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(sys, "executable", str(programs / "python"))

    def does(script):
        path = programs / "west"
        path.write_text(f'#!/bin/sh\necho "$ZEPHYR_BASE $*" >> {tmp_path}/calls\n{script}\n')
        path.chmod(0o755)

    does.calls = lambda: (tmp_path / "calls").read_text().splitlines()
    return does


def generate(archive, directory, **kwargs):
    directory.mkdir()
    names = [field.name for field in dataclasses.fields(Purpose) if field.name in kwargs]
    purpose = Purpose(**{name: kwargs.pop(name) for name in names})
    return zephyr.generate(archive, directory, purpose, **kwargs)


def test_an_application_can_profile(tmp_path, archive):
    for profile in (False, True):
        project = generate(archive, tmp_path / f"app{profile}", profile=profile)
        cmake = (project.directory / "CMakeLists.txt").read_text()
        assert ("TVMGEN_PROFILE" in cmake) == profile


@pytest.mark.parametrize("kind", KINDS)
def test_an_application_has_all_it_needs_and_nothing_else(tmp_path, archive, kind):
    project = generate(archive, tmp_path / "app", kind=kind).directory
    files = {p.relative_to(project).as_posix() for p in project.rglob("*") if p.is_file()}
    assert {"CMakeLists.txt", "prj.conf", "Kconfig", "README.md", "LICENSE.md"} <= files
    assert {f"src/{kind}.c", "src/port.c", "src/inference.c", "src/model_glue.c"} <= files
    assert ("src/samples.c" in files) == (kind == "standalone")
    assert "model/codegen/host/src/tvmgen_tiny.c" in files
    assert not any("startup" in name or "libc" in name for name in files)
    cmake = (project / "CMakeLists.txt").read_text()
    listed = {word for word in cmake.split() if word.endswith(".c")}
    assert listed == {name for name in files if name.endswith(".c")}
    text = "".join((project / name).read_text() for name in files)
    assert str(tmp_path) not in text and "{{" not in text


def test_known_boards_bring_their_fragments(tmp_path, archive):
    project = generate(archive, tmp_path / "app").directory
    overlay = (project / "boards" / "nucleo_h743zi_stm32h743xx.overlay").read_text()
    assert "/delete-property/ zephyr,code-partition" in overlay
    ours = (b for b in INVENTORY.types.values() if b.platform == "zephyr")
    known = {board.zephyr_board.replace("/", "_") for board in ours}
    assert {p.stem for p in (project / "boards").iterdir()} <= known
    for board in INVENTORY.types.values():
        for fragment in board.zephyr_fragments:
            assert (project / "fragments" / fragment).is_file()


def test_models_that_need_a_mathematical_library_get_one(tmp_path, archive):
    plain = generate(archive, tmp_path / "plain").directory
    assert "libraries m" not in (plain / "CMakeLists.txt").read_text()
    source = fake_mlf.SOURCE
    try:
        fake_mlf.SOURCE = "#include <math.h>\n" + source
        maths = fake_mlf.write(tmp_path / "maths.tar")
    finally:
        fake_mlf.SOURCE = source
    full = generate(maths, tmp_path / "full").directory
    assert "libraries m" in (full / "CMakeLists.txt").read_text()
    assert (full / "src" / "libc.c").is_file()


def test_the_build_id_changes_with_everything_the_firmware_is_made_from(tmp_path, archive):
    other = fake_mlf.write(tmp_path / "other.tar", result="1")
    ids = [
        generate(archive, tmp_path / "a").build_id,
        generate(other, tmp_path / "b").build_id,
        generate(archive, tmp_path / "c", benchmark="kws01").build_id,
        generate(archive, tmp_path / "d", stack_bytes=4096).build_id,
        generate(archive, tmp_path / "e", tools=("zephyr 3.7.1 0123456789ab",)).build_id,
        generate(archive, tmp_path / "f", kind="standalone").build_id,
    ]
    assert len(set(ids)) == len(ids)
    assert generate(archive, tmp_path / "g").build_id == ids[0]


def test_samples_are_those_of_the_model(tmp_path, archive):
    vectors = fake_mlf.write_vectors(tmp_path / "vectors.npz")
    samples = read_samples(vectors)
    project = generate(archive, tmp_path / "app", kind="standalone", samples=samples).directory
    text = (project / "src" / "samples.c").read_text()
    assert ",".join(map(str, samples.inputs[0])) in text.replace("\n    ", "").replace(" ", "")
    with pytest.raises(ConfigError, match="samples have 15 bytes of inputs, the model 16"):
        generate(archive, tmp_path / "bad", kind="standalone", samples=Samples((bytes(15),)))


def test_samples_of_a_tflite_file_have_answers(tmp_path):
    model = tmp_path / "tiny.tflite"
    model.write_bytes(tiny.model())
    samples = read_samples(model)
    inputs = np.frombuffer(b"".join(samples.inputs), np.int8).reshape(-1, 1, 8, 8, 1)
    expected = [tflite_graphs.answer(tiny.model(), [row])[0].tobytes() for row in inputs]
    assert list(samples.outputs) == expected and len(expected) == 3
    for wrong in ("absent.tflite", "absent.npz", "", "model.py"):
        with pytest.raises(McuforgeError, match=r"cannot read|is no model"):
            read_samples(tmp_path / wrong)


TICKS = """\
#include "ticks.h"
uint64_t extend(uint64_t coarse, uint32_t low) { return ticks_extend(coarse, low); }
uint64_t scale(uint64_t value, uint32_t from_hz, uint32_t to_hz) {
    return ticks_scale(value, from_hz, to_hz);
}
"""


def test_counters_that_wrap_count_on(tmp_path):
    (tmp_path / "ticks.c").write_text(TICKS)
    command = ["gcc", "-shared", "-fPIC", "-O2", f"-I{DEVICE / 'zephyr'}"]
    subprocess.run([*command, "-o", tmp_path / "t.so", tmp_path / "ticks.c"], check=True)
    library = ctypes.CDLL(os.fspath(tmp_path / "t.so"))
    extend, scale = library.extend, library.scale
    extend.argtypes, extend.restype = [ctypes.c_uint64, ctypes.c_uint32], ctypes.c_uint64
    scale.argtypes = [ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint32]
    scale.restype = ctypes.c_uint64
    far = 1 << 31
    for ticks in (far, (1 << 32) - 1, 1 << 32, (1 << 32) + 1, 5 << 32, (1 << 60) + 12345):
        for error in (0, 1, -1, 480_000, -480_000, far - 1, 1 - far):
            assert extend(ticks + error, ticks & 0xFFFFFFFF) == ticks
    year = 365 * 24 * 3600 * 480_000_000
    for ticks in (0, 1, 479, (1 << 32) + 7, year):
        for from_hz, to_hz in ((480_000_000, 1_000_000), (32768, 480_000_000), (32_000_000, 1)):
            if ticks * to_hz // from_hz < 1 << 64:
                assert scale(ticks, from_hz, to_hz) == ticks * to_hz // from_hz


def test_without_a_tree_the_error_says_how_to_get_one(tmp_path, archive, monkeypatch):
    monkeypatch.delenv("ZEPHYR_BASE", raising=False)
    with pytest.raises(ConfigError, match=r"ZEPHYR_BASE.*snakemake zephyr_workspace"):
        builder.build(Order(archive, AN500, "gcc"), tmp_path / "f.elf", tmp_path / "s.json")
    monkeypatch.setenv("ZEPHYR_BASE", str(tmp_path))
    with pytest.raises(ConfigError, match="is no Zephyr tree"):
        workspace.find()
    assert "is no Zephyr tree" in zephyr.version(AN500, "gcc")


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("3.7.0", "mps3/an547"),
        ("3.7.99", "mps3/an547"),
        ("4.0.0", "mps3/corstone300/an547"),
        ("4.2.99", "mps3/corstone300/an547"),
        ("10.0.0", "mps3/corstone300/an547"),
    ],
)
def test_boards_are_called_what_the_tree_calls_them(tmp_path, version, name):
    board = INVENTORY.board("zephyr_mps3_an547")
    assert workspace.Workspace(tmp_path, version, "").target(board) == name
    twice = dataclasses.replace(board, zephyr_board_before={"4.0": "b", "3.6": "a", "4.1": "c"})
    names = [
        workspace.Workspace(tmp_path, v, "").target(twice) for v in ("3.5.0", "3.7.0", "4.0.1")
    ]
    assert names == ["a", "b", "c"]


def test_the_name_in_an_older_tree_goes_to_west(west, tree, tmp_path, archive):
    west("exit 1")
    board = INVENTORY.board("zephyr_mps3_an547")
    files = (tmp_path / "f.elf", tmp_path / "s.json")
    with pytest.raises(ToolError):
        builder.build(Order(archive, board, "gcc"), *files, project=tmp_path / "app")
    assert west.calls()[0].startswith(f"{tree} build --board mps3/an547 ")
    names = {path.name for path in (tmp_path / "app" / "boards").iterdir()}
    assert "mps3_an547.conf" in names and "mps3_corstone300_an547.conf" not in names


def test_provenance_is_version_and_commit(tree):
    assert str(workspace.find()) == "zephyr 3.7.1"
    git = ["git", "-C", str(tree), "-c", "user.name=n", "-c", "user.email=e@example.com"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "1"]):
        subprocess.run([*git, *command], check=True)
    workspace._commit.cache_clear()
    found = workspace.find()
    assert len(found.commit) == 12 and str(found) == f"zephyr 3.7.1 {found.commit}"
    assert zephyr.version(NUCLEO, "clang") == f"{found}, llvm"
    tree.joinpath("VERSION").open("a").write("\n")
    workspace._commit.cache_clear()
    assert workspace.find().commit == f"{found.commit}-dirty"


@pytest.mark.parametrize(
    ("toolchain", "settings"),
    [
        ("gcc", ["-DZEPHYR_TOOLCHAIN_VARIANT=gnuarmemb", "-DGNUARMEMB_TOOLCHAIN_PATH="]),
        ("clang", ["-DZEPHYR_TOOLCHAIN_VARIANT=llvm", "-DLLVM_TOOLCHAIN_PATH="]),
    ],
)
def test_west_builds_for_the_board_with_the_toolchain(west, tmp_path, toolchain, settings):
    west("")
    board = dataclasses.replace(NUCLEO, zephyr_fragments=("weights-dtcm.conf", "x.overlay"))
    command = zephyr.build_command(
        tmp_path, board, "nucleo_h743zi/stm32h743xx", toolchain, enlarged=False
    )
    assert command[1:4] == ["build", "--board", "nucleo_h743zi/stm32h743xx"]
    for setting in settings:
        assert any(word.startswith(setting) for word in command)
    assert f"-DEXTRA_CONF_FILE={tmp_path}/fragments/weights-dtcm.conf" in command
    assert f"-DEXTRA_DTC_OVERLAY_FILE={tmp_path}/fragments/x.overlay" in command
    assert not any("CONFIG_FLASH_SIZE" in word for word in command)


def test_the_sdk_is_a_variant(west, tmp_path):
    west("")
    board = dataclasses.replace(AN500, zephyr_variants={"gcc": "zephyr"})
    command = zephyr.build_command(tmp_path, board, "mps2/an500", "gcc", enlarged=True)
    assert "-DZEPHYR_TOOLCHAIN_VARIANT=zephyr" in command
    assert not any("GNUARMEMB" in word for word in command)
    assert any(word.startswith("-DCONFIG_FLASH_SIZE=") for word in command)


def test_the_version_of_the_sdk_is_provenance(tree, tmp_path, monkeypatch):
    board = dataclasses.replace(AN500, zephyr_variants={"gcc": "zephyr"})
    monkeypatch.delenv("ZEPHYR_SDK_INSTALL_DIR", raising=False)
    assert zephyr.toolchain_version(board, "gcc") == "gcc of Zephyr SDK"
    (tmp_path / "sdk_version").write_text("0.17.4\n")
    monkeypatch.setenv("ZEPHYR_SDK_INSTALL_DIR", str(tmp_path))
    assert zephyr.toolchain_version(board, "gcc") == "gcc of Zephyr SDK 0.17.4"
    assert zephyr.version(board, "gcc").endswith(", Zephyr SDK 0.17.4")
    assert "SDK" not in zephyr.version(AN500, "gcc")


def test_gcc_12_cannot_build_for_cortex_m85_and_says_so():
    try:
        zephyr.toolchain_settings(INVENTORY.board("ek_ra8m1"), "gcc")
    except ToolError as error:
        assert "cortex-m85" in str(error) and "gcc >= 13 or toolchain clang" in str(error)
    else:
        assert int(toolchains.version("gcc", "cortex-m85").split()[1].split(".")[0]) >= 13


# What CMake prints, indented and wrapped as it does.
NO_SDK = """\
CMake Error at /zephyr/cmake/modules/FindZephyr-sdk.cmake:159 (find_package):
  Could not find a package configuration file provided by "Zephyr-sdk"
  (requested version 0.16) with any of the following names:

    Zephyr-sdkConfig.cmake

-- Configuring incomplete, errors occurred!
FATAL ERROR: command exited with status 1: /usr/bin/cmake
"""
NO_BOARD = """\
CMake Error at /zephyr/cmake/modules/boards.cmake:285 (message):
  Board qualifiers `/an500` for board `mps2` not found.  Please specify a
  valid board target.

FATAL ERROR: command exited with status 1: /usr/bin/cmake
"""


def test_without_the_sdk_the_error_says_so(west, tree, tmp_path, archive):
    west(f"cat <<'END'\n{NO_SDK}END\nexit 1")
    board = dataclasses.replace(AN500, zephyr_variants={"gcc": "zephyr"})
    with pytest.raises(ToolError, match=r"^Zephyr's SDK not found \(.*ZEPHYR_SDK_INSTALL_DIR"):
        builder.build(Order(archive, board, "gcc"), tmp_path / "f.elf", tmp_path / "s.json")


def test_what_cmake_refuses_is_said_in_its_words(west, tree, tmp_path, archive):
    west(f"cat <<'END'\n{NO_BOARD}END\nexit 1")
    with pytest.raises(ToolError, match=r"failed: Board qualifiers .* valid board target\."):
        builder.build(Order(archive, AN500, "gcc"), tmp_path / "f.elf", tmp_path / "s.json")


def test_a_failed_build_says_why(west, tree, tmp_path, archive):
    west('echo "main.c:1: error: nothing here"; exit 1')
    with pytest.raises(ToolError, match=r"main\.c:1: error: nothing here"):
        builder.build(Order(archive, AN500, "gcc"), tmp_path / "f.elf", tmp_path / "s.json")
    assert west.calls()[0].startswith(f"{tree} build --board mps2/an500")
    assert not (tmp_path / "f.elf").exists()


def test_what_does_not_fit_is_linked_with_more_memory(west, tree, tmp_path, archive):
    west(
        'case "$*" in *CONFIG_FLASH_SIZE*) echo enlarged; exit 1;; esac\n'
        "mkdir -p build\n"
        'echo "ld: region \\`FLASH\' overflowed by 9 bytes"\n'
        'echo "collect2: error: ld returned 1 exit status"; exit 1'
    )
    with pytest.raises(ToolError, match="enlarged"):
        builder.build(Order(archive, AN500, "gcc"), tmp_path / "f.elf", tmp_path / "s.json")
    assert len(west.calls()) == 2


def test_without_west_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ToolError, match="make zephyr"):
        workspace.west()


def repository(path, content, tag=""):
    path.mkdir(parents=True)
    for name, text in content.items():
        (path / name).write_text(text)
    git = ["git", "-C", str(path), "-c", "user.name=n", "-c", "user.email=e@example.com"]
    commands = [["init", "-q"], ["config", "uploadpack.allowAnySHA1InWant", "true"]]
    commands += [["add", "."], ["commit", "-q", "-m", "1"], *([["tag", tag]] if tag else [])]
    for command in commands:
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return head.stdout.strip()


def test_a_workspace_has_only_the_modules_the_boards_need(tmp_path, monkeypatch):
    if not shutil.which("west", path=os.fspath(Path(sys.executable).parent)) and not shutil.which(
        "west"
    ):
        pytest.skip("west is not installed; `make zephyr` does that")
    remote = tmp_path / "remote"
    modules = ("cmsis", "cmsis_6", "hal_stm32", "hal_nxp")
    projects = [
        {
            "name": name,
            "revision": repository(remote / name, {"x": name}),
            "path": f"modules/{name}",
        }
        for name in modules
    ]
    projects = [{**project, "remote": "upstream"} for project in projects]
    upstream = {"name": "upstream", "url-base": "https://github.com/zephyrproject-rtos"}
    manifest = {"manifest": {"remotes": [upstream], "projects": projects}}
    version = "VERSION_MAJOR = 4\nVERSION_MINOR = 2\nPATCHLEVEL = 0\n"
    content = {"west.yml": yaml.safe_dump(manifest), "VERSION": version}
    revision = yaml.safe_load(
        (TEMPLATES / "zephyr" / "west.yml.j2").read_text().split("import:")[0]
    )["manifest"]["projects"][0]["revision"]
    repository(remote / "zephyr", content, tag=revision)
    for key, value in {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{remote}/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/zephyrproject-rtos/",
    }.items():
        monkeypatch.setenv(key, value)
    directory, module = tmp_path / "workspace", remote / "hal_stm32"
    module.rename(remote / "hidden")
    with pytest.raises(ToolError, match=r"^west update failed: .*hal_stm32"):
        workspace.create(directory, ["hal_stm32"], tmp_path / "log")
    assert not directory.exists()
    (remote / "hidden").rename(module)
    for _ in range(2):  # the second time there is nothing to do
        workspace.create(directory, ["hal_stm32"], tmp_path / "log")
        assert {p.name for p in (directory / "modules").iterdir()} == set(modules) - {"hal_nxp"}
        assert str(workspace.find(directory / "zephyr")).startswith("zephyr 4.2.0 ")


def test_the_command_writes_projects(tmp_path, archive, monkeypatch, capsys):
    monkeypatch.chdir(Path(__file__).parents[2])
    app, bare = tmp_path / "app", tmp_path / "bare"
    assert cli.main(["project", "--type", "mlperftiny", str(archive), str(app)]) == 0
    assert (app / "prj.conf").is_file() and (app / "src" / "mlperftiny.c").is_file()
    assert cli.main(["project", "--platform", "baremetal", str(archive), str(bare)]) == 0
    assert (bare / "toolchain.cmake").is_file() and "mps2_an500" in (bare / "README.md").read_text()
    capsys.readouterr()
    assert cli.main(["project", str(archive), str(app)]) == 1
    assert "is not empty" in capsys.readouterr().err
    arguments = ["project", "--platform", "baremetal", "--board", "nucleo_h743zi"]
    assert cli.main([*arguments, str(archive), str(tmp_path / "x")]) == 1
    assert "use --platform zephyr" in capsys.readouterr().err


@pytest.mark.parametrize("platform", ["zephyr", "baremetal"])
def test_a_project_that_fails_leaves_nothing(tmp_path, archive, platform, capsys):
    bad, projects = tmp_path / "bad.tar", tmp_path / "projects"
    bad.write_bytes(archive.read_bytes()[:700])
    projects.mkdir()
    board = {"zephyr": "ek_ra8m1", "baremetal": "mps2_an500"}[platform]
    arguments = ["project", "--platform", platform, "--board", board]
    assert cli.main([*arguments, str(bad), str(projects / "app")]) == 1
    assert "is not a Model Library Format archive" in capsys.readouterr().err
    assert list(projects.iterdir()) == []
