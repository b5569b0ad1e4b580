"""What a terminal shows beside results: `watch`, `doctor`, `plot --show`, the sparkline of a run; completion."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Refused
from rich.console import Console
from typer.testing import CliRunner

from evobench import doctor, figures, preview, stats, tables, terminal
from evobench.cli import app
from evobench.experiment import make_experiment
from evobench.runner import run_experiment
from evobench.store import Store, load_results
from evobench.watch import look, watch

ROOT = Path(__file__).parents[1]
SMALL = {"algo": "pso_plain,ga_plain", "fn": "sphere", "dim": 2, "pop": 10, "budget": 200, "seeds": 3}


@pytest.fixture
def results(tmp_path):
    """Two cells of three runs."""
    run_experiment(make_experiment(SMALL), tmp_path, jobs=1)
    return tmp_path


def printed(what, width=80):
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(what)
    return console.file.getvalue()


def test_sparkline():
    assert terminal.sparkline([]) == terminal.sparkline([1.0]) == terminal.sparkline([np.inf, 1.0]) == ""
    assert terminal.sparkline([1e3, 1e2, 1e1, 1e0], 4) == "█▆▃▁"  # decades
    assert terminal.sparkline([3.0, -4.0], 8) == "█▁"
    assert terminal.sparkline([2.0, 2.0]) == "▁▁"
    assert terminal.sparkline(list(np.linspace(100, 1, 1000)), 8)[0] == "█"
    assert len(terminal.sparkline(list(range(1, 1000)))) == 8


def test_looking_counts_what_is_stored(results):
    plan, started = Store(results).plan(), datetime.now(UTC) - timedelta(seconds=60)
    assert [cell.key[0] for cell in plan.cells] == ["pso_plain", "ga_plain"]
    shard = next((results / "runs").glob("ga_plain*"))
    Store(results).write_plan(plan.model_copy(update={"started_at": started - timedelta(days=1)}))
    whole = look(Store(results))
    assert (whole.done, whole.total, whole.complete, whole.left_s) == (6, 6, 2, 0.0)
    shutil.move(shard, results / "elsewhere")
    Store(results).write_plan(plan.model_copy(update={"started_at": started}))
    half = look(Store(results), started + timedelta(seconds=60))
    assert (half.done, half.total, half.complete) == (3, 6, 1)
    assert half.left_s == pytest.approx(60, abs=1)  # as much again
    assert half.rate == pytest.approx(3, abs=0.1)
    runs = load_results(results)
    assert half.cells[0].best == runs["best_f"].min()


def test_watching_ends_when_the_last_run_is_stored(results):
    shards = list((results / "runs").glob("ga_plain*")) + list((results / "history").glob("ga_plain*"))
    for shard in shards:
        shutil.move(shard, results / f"{shard.parent.name}-{shard.name}")

    def sleep(seconds):
        assert seconds == 0.5
        for shard in shards:
            shutil.move(results / f"{shard.parent.name}-{shard.name}", shard)

    console = Console(file=io.StringIO(), width=100)
    watch(Store(results), console, every=0.5, live=False, sleep=sleep)
    lines = console.file.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == ["1/2 cells", "2/2 cells", "adhoc is complete"]


def test_nothing_to_watch(tmp_path, refused: Refused):
    with refused("nothing to watch in"):
        look(Store(tmp_path))
    sound = '{"name": "a", "started_at": "2026-01-01T00:00:00Z", "seeds": [0], "cells": []}'
    for text in ("[", "[" * 100_000, "[]", sound.replace("Z", ""), sound.replace("[0]", "[1e999]"), "\ud800"):
        (tmp_path / "plan.json").write_bytes(text.encode("utf-8", "surrogatepass"))
        with refused("cannot read", "plan.json"):
            look(Store(tmp_path))
    (tmp_path / "plan.json").write_text(sound)
    assert look(Store(tmp_path)).total == 0


def test_a_rerun_leaves_the_plan_alone(results):
    before = (results / "plan.json").read_bytes()
    run_experiment(make_experiment({**SMALL, "algo": "pso_plain"}), results, jobs=1)
    assert (results / "plan.json").read_bytes() == before


def test_the_table_of_runs_that_never_met_a_number(results):
    """Of an objective that is NaN everywhere: no warning among the lines."""
    runs = load_results(results)
    finite = runs["seed"].eq(0) & runs["algo"].eq("ga_plain")
    runs = runs.assign(best_f=runs["best_f"].where(finite, np.inf))
    text = printed(terminal.cells_table(make_experiment(SMALL), runs), 120)
    assert text.count(" inf ") == 3, "two medians and the best of one"


def test_doctor_says_what_is_there(monkeypatch):
    lines = {line.name: line for line in doctor.examine()}
    assert {"evobench", "python", "torch", "processor", "cores", "blas", "device", "--compile"} <= set(lines)
    monkeypatch.setenv("CXX", "no-such-compiler")
    (compile_line,) = [line for line in doctor.examine() if line.name == "--compile"]
    assert "no-such-compiler" in compile_line.warning
    monkeypatch.setattr(doctor, "SHIPPED_MS", 1e-9)
    assert "times the shipped time" in doctor.measure(0.01).warning
    monkeypatch.setattr(doctor, "SHIPPED_MS", 1e9)
    assert not doctor.measure(0.01).warning


def test_the_shipped_speed_is_the_measured_one():
    path = ROOT / "results" / "speed" / "bench-30d.parquet"
    if not path.is_file():
        pytest.skip("not a checkout")
    bench = pd.read_parquet(path)
    median = bench.loc[bench["algo"] == "pso_diff", "evobench"].median()
    assert pytest.approx(median / 1500 * 1e3, rel=0.01) == doctor.SHIPPED_MS


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_preview_shows_the_figure(results, width):
    runs, history = load_results(results), load_results(results, "history")
    for figure in (figures.box(runs), figures.convergence(history, runs)):
        text = printed(preview.draw(figure, width), width)
        assert max(map(len, text.splitlines())) <= width
        assert "Sphere, 2D" in text
        assert "gradient off" in text
        dots = [char for char in text if 0x2800 < ord(char) <= 0x28FF]
        assert len(dots) > 10


def test_a_preview_puts_dots_where_the_line_is():
    figure = figures.Figure()
    ax = figure.subplots()
    ax.plot([0, 1], [0, 1], color="red")
    ax.set_title("Up")
    rows = [line.partition("│")[2] for line in printed(preview.draw_panel(ax, 40), 40).splitlines() if "│" in line]
    first = [min(i for i, char in enumerate(row) if ord(char) > 0x2800) for row in rows if row.strip("\u2800")]
    assert first == sorted(first, reverse=True)
    assert first[0] > 20 > 5 > first[-1]


def test_latex_compiles(results, tmp_path):
    """With a LaTeX where there is one; else braces, environments and columns."""
    runs = load_results(results)
    text = tables.render({"summary": stats.summarise(runs), "comparisons": stats.compare(runs)}, "latex")
    head = "\\documentclass{article}\\usepackage{booktabs,longtable}"
    document = f"{head}\\begin{{document}}\n{text}\\end{{document}}\n"
    if latex := shutil.which("pdflatex"):
        (tmp_path / "t.tex").write_text(document)
        subprocess.run([latex, "-halt-on-error", "t.tex"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
        return
    bare = re.sub(r"\\.", "", document)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert not re.search(r"(?<!\\)[_#](?![^$]*\$)", re.sub(r"%.*", "", text))
    opened = re.findall(r"\\(begin|end)\{(\w+)\}", document)
    assert [name for what, name in opened if what == "begin"].count("longtable") == text.count("\\end{longtable}") > 0


def test_completion():
    """Typer's, for the commands and their options."""
    environment = {**os.environ, "_EVOBENCH_COMPLETE": "complete_bash", "COMP_WORDS": "evobench wa", "COMP_CWORD": "1"}
    script = "from evobench.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["watch"], done.stderr
    assert "--install-completion" in CliRunner().invoke(app, ["--help"], prog_name="evobench").stdout
