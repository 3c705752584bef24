"""The grid a configuration describes, and what is said about configurations that cannot be."""

import re
from pathlib import Path

import pytest
import yaml

from mcuforge import artifacts, toolchains
from mcuforge.artifacts import Artifact
from mcuforge.errors import ConfigError
from mcuforge.experiment import Experiment

ROOT = Path(__file__).parents[2]
CONFIG = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())


def experiment(**changes) -> Experiment:
    return Experiment(CONFIG | changes, ROOT)


def test_the_default_grid_has_every_cell() -> None:
    cells = experiment().cells
    assert len(cells) == len(set(cells)) == 4 * 3 * 4
    assert str(cells[0]) == "silabs_kws/mps2_an386/gcc/O1"


def test_the_mlperf_overlay_selects_the_reference_models() -> None:
    overlay = yaml.safe_load((ROOT / "config" / "mlperf-tiny.yaml").read_text())
    assert {cell.model for cell in experiment(**overlay).cells} == {"kws", "vww", "ic", "ad", "sww"}


def test_texts_of_digits_are_numbers_as_the_command_line_gives_them() -> None:
    assert {cell.opt_level for cell in experiment(opt_levels=["0", "3"]).cells} == {0, 3}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": ["nope"]}, ["unknown model 'nope'", "valid models: silabs_kws"]),
        ({"boards": ["nope"]}, ["unknown board 'nope'", "mps2_an500"]),
        ({"opt_levels": [5]}, ["opt_levels[0]", "0, 1, 2, 3 or 4"]),
        ({"opt_levels": 3}, ["opt_levels", "a list"]),
        (
            {"toolchains": ["icc"]},
            ["unknown toolchain 'icc'", "valid toolchains: gcc, clang, tvm-llvm"],
        ),
        ({"models": []}, ["models", "at least one"]),
        (
            {"modes": ["power"]},
            ["unknown mode 'power'", "valid modes: setup, performance, accuracy, profile, cycles"],
        ),
        ({"modes": ["energy"]}, ["mode 'energy' cannot be measured", "a power monitor"]),
        ({"modles": ["kws"]}, ["modles"]),
        (
            {"registries": {"models": "nowhere.yaml", "boards": "config/boards.yaml"}},
            ["nowhere.yaml"],
        ),
    ],
)
def test_a_wrong_configuration_gives_one_line_to_act_on(changes: dict, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        experiment(**changes)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("bench/kws/mps2_an500/gcc/O9/performance.json", ["opt_level '9'", "0, 1, 2, 3, 4"]),
        ("bench/nope/mps2_an500/gcc/O1/performance.json", ["model 'nope'", "silabs_kws"]),
        ("bench/kws/nope/gcc/O1/performance.json", ["board 'nope'", "mps2_an500"]),
        ("bench/kws/mps2_an500/icc/O1/performance.json", ["toolchain 'icc'", "gcc, clang"]),
        ("bench/kws/mps2_an500/gcc/O1/energy.json", ["mode 'energy'", "power monitor"]),
        ("profile/kws/mps2_an500/icc/O1.csv", ["toolchain 'icc'", "gcc, clang"]),
        ("datasets/kws02.zip", ["dataset 'kws02'", "kws01"]),
        ("mlf/kws/z80-c/O1.tar", ["target 'z80-c'", "cortex-m7-c"]),
        ("models/nope.vectors.npz", ["model 'nope'"]),
        ("models/kws.json", ["nothing mcuforge makes", "results/models/{model}.tflite"]),
        ("figures/nope.levels.svg", ["model 'nope'"]),
        ("bench/kws", ["nothing mcuforge makes"]),
    ],
)
def test_impossible_artifacts_are_recognized_and_explained(path: str, words: list[str]) -> None:
    known = experiment()
    assert re.fullmatch(known.constraints()["impossible"], f"results/{path}")
    message = str(known.explain(f"results/{path}"))
    assert message.startswith(f"results/{path}")
    assert all(word in message for word in words)


def test_artifacts_of_the_grid_are_possible() -> None:
    known = experiment()
    impossible = re.compile(known.constraints()["impossible"])
    for cell in known.cells:
        names = vars(cell) | {"target": known.target(cell.board, cell.toolchain)}
        names |= {"mode": "performance", "dataset": "kws01"}
        for artifact in Artifact:
            path = artifact.format(**names)
            assert not impossible.fullmatch(path)
            ((found, wildcards),) = artifacts.read(path)
            assert found == artifact
            assert artifact.format(**wildcards) == path


def test_every_artifact_has_a_log_of_its_own() -> None:
    """But for the two files each that one step makes at once."""
    assert Artifact.ARCHIVE.log == "results/logs/mlf/{model}/{target}/O{opt_level}.log"
    together = {Artifact.PROFILE_SIZE, Artifact.PROFILE_FIGURE}
    logs = [artifact.log for artifact in Artifact if artifact not in together]
    assert len(logs) == len(set(logs))


def test_the_table_of_artifacts_is_the_only_place_with_their_paths() -> None:
    areas = {artifact.area for artifact in Artifact if "{" in artifact}
    sources = [*(ROOT / "workflow").rglob("*.smk"), *(ROOT / "scripts").glob("*.py")]
    sources += [ROOT / "Snakefile", *(ROOT / "src").rglob("*.py")]
    for source in sources:
        if source.name != "artifacts.py":
            assert not [area for area in areas if f"{area}/" in source.read_text()], source


def test_cycles_are_modelled_where_core_and_memory_are_described() -> None:
    known = experiment(
        models=["kws"], boards=["mps2_an500", "nucleo_h743zi", "mps3_an547"], modes=["cycles"]
    )
    assert {cell.board for cell, _ in known.results} == {"mps2_an500", "nucleo_h743zi"}
    assert known.notes == [
        "cycles of mps3_an547 are not modelled: its core or its memory is not described"
    ]


def test_accuracy_is_measured_where_the_data_set_is_there(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("MCUFORGE_DATASETS", str(tmp_path))
    (tmp_path / "ad01").mkdir()
    (tmp_path / "ad01" / "y_labels.csv").write_text("")
    known = experiment(models=["kws", "ic", "ad", "sww"], modes=["performance", "accuracy"])
    measured = {
        mode: {cell.model for cell, of in known.results if of == mode}
        for mode in ("performance", "accuracy")
    }
    assert measured == {"performance": {"kws", "ic", "ad", "sww"}, "accuracy": {"ad"}}
    kws, ic, sww = known.notes
    assert kws.startswith("no data set kws01 here: the accuracy of kws is not measured")
    assert "snakemake --cores 1 results/datasets/kws01.zip" in kws
    assert "MCUFORGE_DATASETS" in ic and "snakemake" not in ic
    assert sww == "sww has no data set: its accuracy is not measured"
    with pytest.raises(ConfigError, match="sww has no data set"):
        known.data_set_file("sww")


def test_models_with_a_float_input_have_no_data_set_of_bytes() -> None:
    models = experiment().models.values()
    known = {m.name: m.dataset.name for m in models if m.dataset}
    assert known == {"kws": "kws01", "vww": "vww01", "ic": "ic01", "ad": "ad01", "ad_float": "ad01"}


def test_a_data_set_that_is_not_registered_with_its_content_counts_by_it(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("MCUFORGE_DATASETS", str(tmp_path))
    known = experiment()
    assert known.data_set_content("kws01") == known.datasets["kws01"].sha256
    (tmp_path / "ad01").mkdir()
    seen = {known.data_set_content("ad01")}
    for content in ("1", "2"):
        (tmp_path / "ad01" / "y_labels.csv").write_text("a.bin,2,0\n")
        (tmp_path / "ad01" / "a.bin").write_text(content)
        seen.add(known.data_set_content("ad01"))
    assert len(seen) == 3


def edited(tmp_path: Path, board: str, **changes) -> Experiment:
    boards = yaml.safe_load((ROOT / "config" / "boards.yaml").read_text())
    boards[board] |= changes
    (tmp_path / "boards.yaml").write_text(yaml.safe_dump(boards, sort_keys=False))
    registries = CONFIG["registries"] | {"boards": str(tmp_path / "boards.yaml")}
    return experiment(registries=registries)


def test_a_flash_runner_is_neither_built_in_nor_part_of_a_measurement(tmp_path: Path) -> None:
    before = experiment()
    after = edited(tmp_path, "nucleo_h743zi", runners=["jlink"], usb=["1366:0101"])
    for facts in ("build_facts", "run_facts"):
        was, now = getattr(before, facts)("nucleo_h743zi"), getattr(after, facts)("nucleo_h743zi")
        assert was == now


def test_a_smaller_memory_is_built_in(tmp_path: Path) -> None:
    after = edited(tmp_path, "mps2_an500", stack_bytes=4096)
    assert after.build_facts("mps2_an500") != experiment().build_facts("mps2_an500")


def test_a_toolchain_too_old_for_a_core_is_left_out_with_a_note(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        toolchains, "knows", lambda name, core: (name, core) != ("gcc", "cortex-m85")
    )
    known = experiment(boards=["mps2_an500", "mps3_an547_m85"], toolchains=["gcc", "clang"])
    pairs = {(cell.board, cell.toolchain) for cell in known.cells}
    assert pairs == {
        ("mps2_an500", "gcc"), ("mps2_an500", "clang"), ("mps3_an547_m85", "clang"),
    }  # fmt: skip
    (note,) = known.notes
    assert "gcc cannot compile for cortex-m85" in note
    # Nothing else to build with: the build will say why it cannot.
    assert experiment(boards=["mps3_an547_m85"], toolchains=["gcc"]).cells
