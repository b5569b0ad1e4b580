"""The report: one whole page of what is stored, which says what is not."""

from __future__ import annotations

import base64
import itertools
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import Refused
from test_claims import claimed, write
from typer.testing import CliRunner

from evobench import bar, figures, report
from evobench.claims import CLAIMS, judge
from evobench.cli import app
from evobench.configs import asked, shipped_configs
from evobench.store import Store, StoreError, load_results

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Every tag with its attributes, and the text; an unbalanced tag is an error."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data

    def all(self, name: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.tags if tag == name]


PROBLEMS = (("ackley", 30), ("michalewicz", 50))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Figure 1 on two problems under the paper's protocol, with a learned parameter; nothing else."""
    results = tmp_path_factory.mktemp("results")
    some = ("ga", "ga_diff", "pso_diff")
    cells = {key: median for key, median in claimed().items() if key[0] in some and key[1:] in PROBLEMS}
    write(results, "figure1", cells, shift=0.0, git_commit="0123456789abcdef", settings="{}")
    directory = results / "figure1"
    runs, history = load_results(directory), load_results(directory, "history")
    swarm = history["algo"] == "pso_diff"
    history["omega"] = (0.7 - history["evals"] / 5000).where(swarm)
    history["gradients"] = history["evals"].where(swarm)
    shutil.rmtree(directory)
    Store(directory).write(runs, history)
    return results


@pytest.fixture(scope="module")
def html(results: Path) -> str:
    return report.build(results)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


# --- structure ---------------------------------------------------------------------------------


def test_it_needs_nothing_beside_it(page: Page, html: str) -> None:
    assert html.startswith("<!DOCTYPE html>")
    assert not page.all("script")
    assert not page.all("link")
    assert all(image["src"].startswith("data:image/") for image in page.all("img"))
    assert not re.search(r"(?:src|href)=\"(?!#|data:)|url\(|@import", html)


def test_every_anchor_leads_somewhere(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {link["href"].removeprefix("#") for link in page.all("a")}
    assert targets <= set(ids)
    assert {*(claim.id for claim in CLAIMS), "figure1", "learned", "tables", "provenance"} <= targets


def test_headings_do_not_skip_a_level(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_tables_are_rectangular_and_scroll(html: str) -> None:
    tables = re.findall(r"(<div class=\"scroll[^>]*>\s*)?<table>(.*?)</table>", html, re.S)
    assert len(tables) > 5
    for container, table in tables:
        assert container
        width = len(re.findall("<th ", table.split("</thead>")[0]))
        for row in re.findall("<tr>(.*?)</tr>", table, re.S):
            assert len(re.findall("<t[hd] ?", row)) == width


def test_phones_print_and_dark_screens_are_thought_of(html: str) -> None:
    for text in ('name="viewport"', "@media print", "prefers-color-scheme: dark", "max-width: 100%"):
        assert text in html


# --- content -----------------------------------------------------------------------------------


def test_images_are_whole_and_say_what_they_show(page: Page) -> None:
    images = page.all("img")
    assert len(images) == 5
    for image in images:
        kind, content = re.fullmatch(r"data:image/(png|svg\+xml);base64,(.+)", image["src"]).groups()
        data = base64.b64decode(content, validate=True)
        assert data.startswith(b"\x89PNG") if kind == "png" else data.rstrip().endswith(b"</svg>")
    box, _, ecdf, ranks, learned = (image["alt"] for image in images)
    assert "ga, ga_diff, pso_diff on Ackley, 30D; Michalewicz, 50D" in box
    assert "Ackley, 30D pso_diff 2; Michalewicz, 50D pso_diff 2" in box
    assert "Michalewicz" not in ecdf
    assert "Average ranks: pso_diff 1.00, ga 2.50, ga_diff 2.50" in ranks
    assert "pso_diff omega 0.68 to 0.5" in learned
    assert "gradients" not in learned


def test_the_bar_is_there(page: Page, results: Path) -> None:
    own = bar.judge(results)
    assert f"G: {bar.SENTENCE}: {own.verdict}" in page.text
    assert bar.RULE in page.text
    assert all(part.text in page.text for part in own.finding.parts)
    assert page.text.count("ga_guarded vs plain") == 8
    assert {"href": "#G"} in page.all("a")


def test_verdicts_and_rules_are_those_of_the_claims(page: Page, results: Path) -> None:
    for judgement in judge(results):
        assert f"{judgement.claim.id}: {judgement.claim.sentence}: {judgement.verdict}" in page.text
        assert judgement.claim.rule in page.text
        assert judgement.paper.command in page.text


def test_ablations_are_asked_and_shown_where_claims_refer_to_them(tmp_path: Path) -> None:
    cells = {("cmaes_diff", fn, 30): 1.0 for fn in ("ackley", "griewank")}
    write(tmp_path, "ablation-shift", cells, settings="{}")
    write(tmp_path, "ablation-of-mine", {("cmaes_diff", "ackley", 30): 1.0}, settings="{}")
    page = Page(report.build(tmp_path))
    mine, shift = (image["alt"] for image in page.all("img"))
    assert shift.startswith("Box plots")
    assert mine.startswith("Lines of the best fitness so far")  # one problem: the way there
    assert asked(shipped_configs() / "ablation-shift.yaml") in page.text
    assert "ablation-of-mine" in page.text
    assert "Also there" not in page.text
    assert {"id": "ablation-shift"} in page.all("figure")
    assert {"href": "#ablation-shift"} in page.all("a")
    assert {"href": "#ablation-start"} not in page.all("a")  # it is not there
    assert all(judgement.claim.why in page.text for judgement in judge(tmp_path))


def test_an_ablation_without_runs_is_not_computed(tmp_path: Path) -> None:
    """Stopped before its first result, it is a directory and no more."""
    (tmp_path / "ablation-shift" / "runs").mkdir(parents=True)
    page = Page(report.build(tmp_path))
    assert {"class": "absent", "id": "ablation-shift"} in page.all("div")
    assert "evobench run configs/ablation-shift.yaml" in page.text


def test_what_is_missing_is_said_with_its_command(page: Page) -> None:
    for name in ("figure1-fair", "figure2"):
        assert f"Not computed. To compute it: evobench run configs/{name}.yaml" in page.text


def test_commands_tell_where_the_results_are(html: str, results: Path) -> None:
    assert f"evobench plot {results}/figure1 --kind box" in html
    assert f"evobench claims --results {results}<" in html
    assert f"evobench report {results}<" in html


def test_tables_and_provenance_are_the_stores(page: Page) -> None:
    assert "180 runs in 6 cells." in re.sub(r", in \S+", ".", page.text)
    assert "0123456789ab" in page.text
    assert "ga_diff vs ga" in page.text


def test_figure_2_from_each_start(tmp_path: Path) -> None:
    large = ("michalewicz", 500)
    write(
        tmp_path,
        "figure2",
        {("cmaes_diff", *large): -98.0, ("cmaes_plain", *large): -97.0},
        init="centre",
        settings="{}",
    )
    write(tmp_path, "figure2", {("cmaes", *large): -30.0}, init="uniform", settings="{}")
    write(tmp_path, "figure2", {("cmaes", *large): -99.0}, init="centre", settings="{}")
    own, centre = (image["alt"] for image in Page(report.build(tmp_path)).all("img"))
    assert "cmaes, cmaes_diff, cmaes_plain on Michalewicz, 500D, each from its own start" in own
    assert own.endswith("Michalewicz, 500D cmaes_diff -98.")
    assert centre.endswith("Michalewicz, 500D cmaes -99.")


def test_text_from_the_store_is_escaped(tmp_path: Path) -> None:
    write(tmp_path, "figure1", {("ga", "ackley", 30): 1.0}, cpu="<script>alert(1)</script>", settings="{}")
    html = report.build(tmp_path)
    assert "&lt;script&gt;" in html
    assert "<script" not in html
    assert "Not drawn: ranks need 3 algorithms" in html


def test_without_results_there_is_a_page_that_says_so(tmp_path: Path) -> None:
    page = Page(report.build(tmp_path))
    assert not page.all("img")
    assert page.text.count("Not computed.") > 8


# --- learned parameters ------------------------------------------------------------------------


def test_learned_parameters_are_medians_in_quartiles(results: Path, refused: Refused) -> None:
    runs, history = load_results(results / "figure1"), load_results(results / "figure1", "history")
    history["omega"] += history["seed"] / 100
    figure = figures.learned(history, runs)
    assert [ax.get_title() for ax in figure.axes] == ["Ackley", "Michalewicz"]
    assert figure.axes[0].get_ylabel() == r"PSO: inertia $\omega$"
    (line,) = figure.axes[0].lines
    assert line.get_xdata()[[0, -1]] == pytest.approx([100 / 30, 1000 / 30])
    assert line.get_ydata()[[0, -1]] == pytest.approx([0.68 + 0.145, 0.5 + 0.145])
    (band,) = figure.axes[0].collections
    ends = band.get_paths()[0].vertices
    assert ends[np.isclose(ends[:, 0], 1000 / 30), 1].min() == pytest.approx(0.5 + 0.0725)
    with refused("no run", "adapts"):
        figures.learned(history, runs[runs["algo"] == "ga"])


def test_a_large_figure_is_a_png(monkeypatch: pytest.MonkeyPatch, results: Path) -> None:
    figure = figures.box(load_results(results / "figure1"))
    assert report.inline(figure).startswith("data:image/svg+xml;base64,")
    monkeypatch.setattr(report, "LARGEST_SVG", 1000)
    assert report.inline(figure).startswith("data:image/png;base64,")


# --- the command -------------------------------------------------------------------------------


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    done = CliRunner().invoke(app, ["report", str(tmp_path / "results"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert f"{tmp_path / 'out' / 'index.html'} (0." in done.stdout
    assert (tmp_path / "out" / "index.html").read_text(encoding="utf-8") == report.build(tmp_path / "results")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["index.html"]


@pytest.mark.parametrize("where", ["nowhere", "figure1"])
def test_a_wrong_directory_is_refused(where: str, results: Path, tmp_path: Path, refused: Refused) -> None:
    with refused(f"{results / where}"):
        report.write(results / where, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_file_is_refused(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "wine" / "runs").mkdir(parents=True)
    (tmp_path / "wine" / "runs" / "x.parquet").write_bytes(b"no parquet")
    with refused("x.parquet", error=StoreError):
        report.build(tmp_path)


def test_a_damaged_history_is_refused(tmp_path: Path, refused: Refused) -> None:
    write(tmp_path, "figure1", {("ga", "ackley", 30): 1.0}, settings="{}")
    (history,) = (tmp_path / "figure1" / "history").iterdir()
    history.write_bytes(b"no parquet")
    with refused(history.name, error=StoreError):
        report.build(tmp_path)
