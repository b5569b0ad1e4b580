"""What is in the wheel, and that shipped configs are found by name; `make test-wheel` installs it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from conftest import Refused
from hatchling.builders.wheel import WheelBuilder

from evobench.configs import find_config, read_config, shipped_configs
from evobench.experiment import make_experiment

ROOT = Path(__file__).parents[1]


def test_the_wheel_has_configs_and_references(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        reference = archive.read("evobench/references/check.parquet")
    assert reference == (ROOT / "evobench" / "references" / "check.parquet").read_bytes()
    assert {f"evobench/configs/{path.name}" for path in (ROOT / "configs").glob("*.yaml")} <= names
    assert {f"evobench/{path.relative_to(ROOT / 'evobench')}" for path in (ROOT / "evobench").rglob("*.py")} <= names
    assert "evobench/templates/report.html" in names
    assert not [name for name in names if name.startswith(("tests/", "results/")) or name.endswith((".pyc", ".tmp"))]


@pytest.mark.parametrize("given", ["figure1", "figure1.yaml", "configs/figure1.yaml"])
def test_shipped_configs_are_found_anywhere(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config(Path(given)) == shipped_configs() / "figure1.yaml"
    assert make_experiment(read_config(Path(given))).name == "figure1"
    mine = tmp_path / given
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("algo: ga\n")
    assert find_config(Path(given)) == Path(given)


def test_other_paths_mean_what_they_say(tmp_path: Path, refused: Refused) -> None:
    with refused("cannot read the config"):
        read_config(tmp_path / "figure1.yaml")
    with refused("cannot read the config 'figure9'"):
        read_config(Path("figure9"))
