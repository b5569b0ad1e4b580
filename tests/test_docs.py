"""What the documentation says of the code is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import evobench
from evobench.cli import app

ROOT = Path(__file__).parents[1]
SECTIONS = re.findall(
    r"^## [^\n]*: `(evobench/\S+\.py)`$(.*?)(?=^## |\Z)", (ROOT / "docs/algorithms.md").read_text(), re.M | re.S
)


@pytest.mark.parametrize(("file", "section"), SECTIONS, ids=[file for file, _ in SECTIONS])
def test_every_equation_has_its_line(file: str, section: str) -> None:
    source = (ROOT / file).read_text()
    lines = re.findall(r"^\| .*\| `(.+)` \|$", section, re.M)
    assert len(lines) >= 4
    for line in lines:
        assert source.count(line) >= 1, f"{line!r} is not in {file}"


def test_the_four_algorithms_are_there() -> None:
    assert {Path(file).stem for file, _ in SECTIONS} >= {"loop", "relaxations", "pso", "ga", "de", "cmaes", "outer"}


@pytest.mark.parametrize("path", [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")], ids=lambda path: path.name)
def test_commands_and_links_exist(path: Path) -> None:
    text = path.read_text()
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    for name in re.findall(r"(?:\$ |`)evobench (\w+)", text):
        assert name in commands, f"evobench {name}"
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (path.parent / link).exists(), link


def test_the_citation_and_the_workflow() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == evobench.__version__
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    steps = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["test"]["steps"]
    assert [step["run"].split(" #")[0].strip() for step in steps if "run" in step] == [
        ".ci/run",
        ".venv/bin/evobench check",
    ]
