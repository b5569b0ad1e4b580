"""The command line as its users meet it: in a terminal, in a pipe, interrupted, and given nonsense."""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pandas as pd
import pexpect
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner, Result

import evobench
from evobench import tasks
from evobench.algorithms import ALGORITHMS
from evobench.cli import app
from evobench.interrupts import Terminated, held, terminable
from evobench.problems import FUNCTIONS
from evobench.record import RunRecord
from evobench.store import load_results

COMMAND = [sys.executable, "-m", "evobench"]
SMALL = "--fn sphere --dim 2 --pop 10 --budget 200 --seeds 3 --jobs 1"
ESCAPE = "\x1b"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, none of the user's variables, and no trace on the import path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in [name for name in os.environ if name.startswith("EVOBENCH_")]:
        monkeypatch.delenv(name)
    return tmp_path


def call(line: str, **variables: str) -> Result:
    """`evobench LINE` in this process."""
    return CliRunner().invoke(app, line.split(), prog_name="evobench", env=variables, catch_exceptions=False)


def environment(**variables: str) -> dict[str, str]:
    """For a process of its own, which finds the package wherever it stands."""
    path = os.pathsep.join(filter(None, [str(Path(evobench.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **variables}


def tree(directory: Path) -> dict[Path, bytes | None]:
    """Everything in a directory, with its content."""
    return {path: path.read_bytes() if path.is_file() else None for path in directory.rglob("*")}


def refuse(result: Result, *texts: str, code: int = 2) -> None:
    """Assert that a command said nothing but one sentence that contains every text."""
    assert result.exit_code == code, result.output
    assert not result.stdout
    assert re.fullmatch(r"error: [^\n]+\n", result.stderr), result.stderr
    for text in texts:
        assert text in result.stderr


# Help and lists


COMMANDS = [
    "run",
    "compare",
    "plot",
    "watch",
    "doctor",
    "wine",
    "claims",
    "report",
    "verify",
    "bias",
    "gradients",
    "check",
    "list",
]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_has_an_example_and_fits_a_screen(command: str) -> None:
    result = call(f"{command} --help")
    assert result.exit_code == 0
    assert f"  evobench {command or 'run'}" in result.stdout
    lines = result.stdout.splitlines()
    assert len(lines) < 50
    assert max(map(len, lines)) <= 80


def test_alone_it_shows_its_help() -> None:
    result = call("")
    assert result.exit_code == 0
    assert result.stdout == call("--help").stdout


def test_version() -> None:
    assert call("--version").stdout == f"evobench {evobench.__version__}\n"


def test_help_needs_no_heavy_import() -> None:
    code = "import sys, evobench.cli; print(*{'torch', 'pandas', 'pymoo', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_list_names_everything_in_100_columns(place: Path) -> None:
    (place / "configs").mkdir()
    (place / "configs" / "mine.yaml").write_text("# Does it work?\nalgo: ga\n")
    (place / "configs" / "bare.yaml").write_text("algo: ga\n")
    result = call("list")
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 100
    listed = {line.split()[0] for line in result.stdout.splitlines() if line.strip()}
    assert listed >= {*ALGORITHMS, *FUNCTIONS, "paper", "fair", "configs/mine.yaml", "configs/bare.yaml"}
    assert listed >= {key for algorithm in ALGORITHMS.values() for key in type(algorithm.settings).model_fields}
    assert "Does it work?" in result.stdout


@pytest.mark.parametrize(
    ("section", "present", "absent"),
    [
        ("algorithms", "cmaes_tpa", "griewank"),
        ("functions", "griewank", "cmaes_tpa"),
        ("protocols", "fair", "griewank"),
        ("configs", "figure1", "griewank"),
        ("settings", "plateau_patience", "griewank"),
    ],
)
def test_list_shows_one_section(section: str, present: str, absent: str) -> None:
    result = call(f"list {section}")
    assert result.exit_code == 0
    assert present in result.stdout
    assert absent not in result.stdout


# Runs


def test_run_stores_and_shows_its_cells() -> None:
    result = call(f"run --algo ga,cmaes_diff {SMALL}")
    assert result.exit_code == 0
    assert not result.stderr
    runs = load_results("results/adhoc")
    assert sorted(zip(runs["algo"], runs["seed"], strict=True)) == [
        *(("cmaes_diff", seed) for seed in range(3)),
        *(("ga", seed) for seed in range(3)),
    ]
    assert set(runs["experiment"]) == {"adhoc"}
    lines = result.stdout.splitlines()
    assert lines[0] == "2 cells, 6 runs: 0 stored, 6 to run"
    assert lines[1].startswith("3/6 cmaes_diff sphere 2D seeds 0-2: best ")
    assert lines[2].startswith("4/6 ga sphere 2D seed 0: best ")
    (row,) = (line.split() for line in lines if line.startswith("  ga "))
    values = runs[runs["algo"] == "ga"]["best_f"]
    assert row[1:3] == ["3", f"{values.median():.3g}"]
    assert f"{values.min():.3g}" in row
    assert "200" in row
    assert row[-1] == "budget"
    assert "6 runs computed, 0 found, in results/adhoc" in lines
    assert "evobench compare results/adhoc" in result.stdout


def test_the_same_command_finds_what_is_stored() -> None:
    first = call(f"run --algo ga {SMALL}")
    before = tree(Path("results"))
    second = call(f"run --algo ga {SMALL}")
    assert tree(Path("results")) == before
    assert "0 runs computed, 3 found" in second.stdout
    assert [line for line in second.stdout.splitlines() if line.startswith("  ga ")] == [
        line for line in first.stdout.splitlines() if line.startswith("  ga ")
    ]


def test_fresh_computes_these_cells_again_and_no_others() -> None:
    call(f"run --algo ga,de {SMALL}")

    def written() -> dict[str, int]:
        return {path.name.partition("-")[0]: path.stat().st_mtime_ns for path in Path("results/adhoc/runs").iterdir()}

    before = written()
    result = call(f"run --algo ga {SMALL} --fresh")
    assert "3 runs computed, 0 found" in result.stdout
    assert written()["ga"] > before["ga"]
    assert written()["de"] == before["de"]
    assert len(load_results("results/adhoc")) == 6


def test_config_names_the_results_and_flags_override_it(place: Path) -> None:
    (place / "mine.yaml").write_text(
        "algo: [ga, pso]\nfn: ackley\ndim: 3\nseeds: 2\nbudget: 100\npop: 10\n"
        "settings: {ga: {eta_c: 3, eta_m: 4}, pso: {adaptive: false}}\n"
    )
    assert call("run mine.yaml --algo ga --fn sphere --budget 50 --set ga.eta_m=5.5 --jobs 1").exit_code == 0
    runs = load_results("results/mine")
    assert set(runs["experiment"]) == {"mine"}
    assert set(runs["fn"]) == {"sphere"}
    assert set(runs["algo"]) == {"ga"}
    assert set(runs["f_evals"]) == {50}
    assert len(runs) == 2
    assert set(runs["settings"]) == {'{"crossover_rate": 0.9, "eta_c": 3.0, "eta_m": 5.5}'}


def test_every_flag_reaches_the_cell() -> None:
    line = (
        "run --algo pso_diff --fn sphere --dim 2,3 --seeds 1,4 --budget 60 --pop 12 --device cpu --dtype float64 "
        "--init centre --shift 10 --protocol fair --gradient-cost 2 --out here --jobs 1 --set pso_diff.lr=0.005"
    )
    assert call(line).exit_code == 0
    runs = load_results("here")
    assert sorted(zip(runs["dim"], runs["seed"], strict=True)) == [(2, 1), (2, 4), (3, 1), (3, 4)]
    expected = {
        "algo": "pso_diff",
        "budget": 60,
        "pop_size": 12,
        "device": "cpu",
        "dtype": "float64",
        "init": "centre",
        "shift": 10.0,
        "protocol": "fair",
        "gradient_cost": 2.0,
    }
    assert {key: set(runs[key]) for key in expected} == {key: {value} for key, value in expected.items()}
    assert '"lr": 0.005' in runs["settings"][0]


def test_every_flag_has_its_environment_variable() -> None:
    variables = {
        "ALGO": "pso_diff",
        "FN": "sphere",
        "DIM": "2",
        "SEEDS": "1,4",
        "BUDGET": "60",
        "POP": "12",
        "DEVICE": "cpu",
        "DTYPE": "float64",
        "INIT": "centre",
        "SHIFT": "10",
        "PROTOCOL": "fair",
        "GRADIENT_COST": "2",
        "OUT": "here",
        "JOBS": "1",
        "FRESH": "0",
        "QUIET": "1",
        "SET": "pso_diff.lr=0.005 pso_diff.c1=1",
    }
    result = call("run --pop 15", **{f"EVOBENCH_{name}": value for name, value in variables.items()})
    assert result.exit_code == 0
    assert not result.output
    runs = load_results("here")
    expected = {"dtype": "float64", "init": "centre", "shift": 10.0, "gradient_cost": 2.0, "budget": 60}
    assert {key: set(runs[key]) for key in expected} == {key: {value} for key, value in expected.items()}
    assert set(runs["pop_size"]) == {15}, "a flag goes before its variable"
    assert '"c1": 1.0' in runs["settings"][0]
    assert '"lr": 0.005' in runs["settings"][0]


def test_quiet_says_nothing() -> None:
    result = call(f"run --algo ga {SMALL} --quiet")
    assert result.exit_code == 0
    assert not result.output
    assert len(load_results("results/adhoc")) == 3


def test_own_function(place: Path) -> None:
    (place / "own_function.py").write_text("def valley(x):\n    return x.square().sum(-1).sqrt()\n")
    result = call("run --algo cmaes_diff --fn own_function:valley --dim 2 --pop 10 --budget 100 --seeds 2 --jobs 1")
    assert result.exit_code == 0
    assert "own_function:valley 2D" in result.stdout
    assert set(load_results("results/adhoc")["fn"]) == {"own_function:valley"}


def test_a_failed_task_is_reported_and_the_others_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    execute = tasks.execute

    def fail_for_de(task: tasks.Task, progress: tasks.Progress, *more: object) -> list[RunRecord]:
        if task.cell.algo == "de" and task.seeds == (1,):
            raise RuntimeError("the sky fell\non us")
        return execute(task, progress, *more)

    monkeypatch.setattr(tasks, "execute", fail_for_de)
    result = call(f"run --algo ga,de {SMALL}")
    assert result.exit_code == 1
    assert result.stderr == "error: de sphere 2D seed 1 failed: RuntimeError: the sky fell\n"
    assert "\n1 task failed, recorded in results/adhoc/failed: the same command tries them again\n" in result.stdout
    assert "5 runs computed, 0 found" in result.stdout
    assert len(load_results("results/adhoc")) == 5
    quiet = call(f"run --algo ga,de {SMALL} --quiet")
    refuse(quiet, "de sphere 2D seed 1 failed", code=1)


# Compare and plot


@pytest.fixture
def results() -> Path:
    call(f"run --algo ga,ga_diff {SMALL} --out stored")
    return Path("stored")


def test_compare_in_every_format(results: Path) -> None:
    shown = {form: call(f"compare {results} --format {form}") for form in ("table", "markdown", "csv", "latex", "json")}
    for result in shown.values():
        assert result.exit_code == 0
        assert not result.stderr
        assert ESCAPE not in result.stdout
    assert call(f"compare {results}").stdout == shown["table"].stdout
    assert "ga_diff" in shown["table"].stdout
    assert max(map(len, shown["table"].stdout.splitlines())) <= 100
    assert "| ---" in shown["markdown"].stdout
    assert set(pd.read_csv(io.StringIO(shown["csv"].stdout))["table"]) == {"summary", "comparisons"}
    assert "ga\\_diff" in shown["latex"].stdout
    assert [row["algo"] for row in json.loads(shown["json"].stdout)["summary"]] == ["ga", "ga_diff"]


@pytest.mark.parametrize(
    ("flags", "frame"),
    [
        ("--view budget", "intervals"),
        ("--view target", "targets"),
        ("--view time", "seconds"),
        ("--gradient-cost 0,2.5", "prices"),
    ],
)
def test_other_views(results: Path, flags: str, frame: str) -> None:
    rows = json.loads(call(f"compare {results} {flags} --format json").stdout)
    assert list(rows) == [frame]
    assert rows[frame]
    table = call(f"compare {results} {flags}")
    assert table.exit_code == 0
    assert "ga_diff" in table.stdout
    assert max(map(len, table.stdout.splitlines())) <= 100


def test_families_of_tests_are_declared_in_the_config(results: Path, place: Path) -> None:
    call(f"run --algo ga,ga_diff,ga_plain {SMALL} --out stored")
    (place / "all.yaml").write_text("{algo: ga, fn: sphere, dim: 2, test_family: []}")
    default, declared = (
        json.loads(call(f"compare {results} --format json {flags}").stdout)["comparisons"]
        for flags in ("", "--config all.yaml")
    )
    assert [row["p"] for row in default] == [row["p"] for row in declared]
    assert [row["p_holm"] for row in default] == [row["p"] for row in default]  # a family of one each
    least = min(declared, key=lambda row: row["p"])
    assert least["p_holm"] == pytest.approx(min(1, 2 * least["p"]))


def test_claims_in_every_format(place: Path) -> None:
    (place / "results").mkdir()
    shown = {form: call(f"claims --format {form}") for form in ("table", "markdown", "json")}
    for result in shown.values():
        assert result.exit_code == 0
        assert "evidence missing" in result.stdout
        assert "evobench run configs/figure2.yaml" in " ".join(result.stdout.split())
        assert "guarded gradients beat" in result.stdout
    assert call("claims").stdout == shown["table"].stdout
    assert max(map(len, shown["table"].stdout.splitlines())) <= 100
    refuse(call("claims --results nowhere"), "'nowhere'", "directory")


def test_plot_writes_png_and_pdf(results: Path, place: Path) -> None:
    for kind in ("box", "convergence", "ecdf", "profile"):
        result = call(f"plot {results} --kind {kind}")
        assert result.exit_code == 0
        assert result.stdout.split() == [f"stored/figures/{kind}.{form}" for form in ("png", "pdf", "svg")]
        assert (results / "figures" / f"{kind}.png").read_bytes().startswith(b"\x89PNG")
        assert (results / "figures" / f"{kind}.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(("out", "stem"), [("paper/one", "paper/one"), ("one.png", "one"), ("there", "there/box")])
def test_plot_writes_where_it_is_told(results: Path, place: Path, out: str, stem: str) -> None:
    (place / "there").mkdir()
    assert call(f"plot {results} --out {out}").stdout.split() == [f"{stem}.png", f"{stem}.pdf", f"{stem}.svg"]
    assert (place / f"{stem}.pdf").exists()
    assert not (results / "figures").exists()


# Bad input

FLAGS = {"algo": "ga", "fn": "sphere", "dim": "2"}
SEEDS = "a count (30), a range (0-29) or a list (1,4,7)"
BAD_FLAGS = [
    ("algo", "gaa", "'gaa'", "cmaes_diff"),
    ("algo", ",", "no algorithm"),
    ("fn", "akley", "'akley'", "ackley"),
    ("fn", ",", "no function"),
    ("fn", "no_such_module:f", "no_such_module:f"),
    ("fn", "bad_functions:missing", "bad_functions:missing"),
    ("fn", "bad_functions:total", "bad_functions:total", "[2, 3]"),
    ("fn", "bad_functions:broken", "bad_functions:broken", "one line, and another"),
    ("dim", "0", "dimension 0", "1"),
    ("dim", "-3", "-3"),
    ("dim", "2.5", "2.5", "integer"),
    ("dim", "two", "'two'", "integer"),
    ("dim", ",", "no dimension"),
    ("dim", "999999999", "999999999", "100000"),
    ("seeds", "5-2", "'5-2'", SEEDS),
    ("seeds", "0", "'0'", SEEDS),
    ("seeds", "-1", "-1", SEEDS),
    ("seeds", "many", "'many'", SEEDS),
    ("seeds", ",", "','", SEEDS),
    ("seeds", "999999999", "999999999", "100000"),
    ("budget", "0", "budget", "0"),
    ("budget", "-5", "-5", "budget"),
    ("budget", "ten", "'ten'", "integer"),
    ("budget", "50", "50", "100"),
    ("pop", "1", "population 1", "at least 2"),
    ("pop", "0", "pop", "0"),
    ("pop", "-1", "-1"),
    ("pop", "2.5", "2.5", "integer"),
    ("device", "tpu", "'tpu'", "cpu"),
    ("dtype", "float16", "'float16'", "float32"),
    ("init", "corner", "'corner'", "centre"),
    ("shift", "nan", "nan", "finite"),
    ("shift", "inf", "inf", "finite"),
    ("shift", "-1", "-1", "shift"),
    ("shift", "1000", "1000", "100"),
    ("shift", "far", "'far'", "number"),
    ("protocol", "unfair", "'unfair'", "fair"),
    ("gradient-cost", "-1", "-1", "gradient_cost"),
    ("gradient-cost", "nan", "nan", "finite"),
    ("jobs", "0", "'0'", "1"),
    ("jobs", "many", "'many'", "1"),
    ("out", "a_file", "'a_file'", "not a directory"),
    ("out", "a_file/deeper", "'a_file/deeper'", "not a directory"),
    ("set", "nonsense", "'nonsense'", "ALGO.KEY=VALUE"),
    ("set", "ga.eta_c", "'ga.eta_c'", "ALGO.KEY=VALUE"),
    ("set", "ga.eta_c={", "'ga.eta_c={'", "ALGO.KEY=VALUE"),
    ("set", "ga.eta=1", "'eta'", "eta_c"),
    ("set", "ga.eta_c=-1", "-1", "ga.eta_c"),
    ("set", "ga.eta_c=.nan", "nan", "finite"),
    ("set", "gaa.eta_c=1", "'gaa'", "ga"),
    ("set", "de.variant=x", "'de'", "ga"),
]


@pytest.fixture
def bad_functions(place: Path) -> Iterator[None]:
    (place / "bad_functions.py").write_text(
        "def total(x):\n    return x.sum()\n\n"
        "def broken(x):\n    raise ValueError('one line,\\nand another')\n\n"
        "def detached(x):\n    return x.detach().square().sum(-1)\n"
    )
    yield
    sys.modules.pop("bad_functions", None)


@pytest.mark.usefixtures("bad_functions")
@pytest.mark.parametrize(("flag", "value", "texts"), [(flag, value, texts) for flag, value, *texts in BAD_FLAGS])
def test_a_bad_flag_is_refused_in_one_sentence(place: Path, flag: str, value: str, texts: list[str]) -> None:
    (place / "a_file").touch()
    before = tree(place)
    line = " ".join(f"--{name}={given}" for name, given in {**FLAGS, flag: value}.items())
    refuse(call(f"run {line}"), *texts)
    assert tree(place) == before


@pytest.mark.usefixtures("bad_functions")
@pytest.mark.parametrize(
    ("line", "texts"),
    [
        ("run", ["--algo, --fn and --dim"]),
        ("run --algo ga --fn sphere", ["--dim"]),
        ("run --algo de --fn sphere --dim 2 --pop 3", ["population 3", "de needs at least 4"]),
        ("run --algo ga --fn rosenbrock --dim 1", ["dimension 1", "at least 2"]),
        ("run --algo ga_diff --fn bad_functions:detached --dim 2", ["bad_functions:detached", "differentiable"]),
        ("run --frobnicate", ["--frobnicate"]),
        ("run --algo", ["--algo"]),
        ("run one.yaml two.yaml", ["two.yaml"]),
        ("frobnicate", ["'frobnicate'", ", ".join(COMMANDS)]),
        ("list everything", ["'everything'", "algorithms"]),
        ("compare", ["DIR"]),
        ("compare nowhere", ["nowhere"]),
        ("compare nowhere --format xml", ["'xml'", "markdown"]),
        ("compare nowhere --view best", ["'best'", "target"]),
        ("compare nowhere --gradient-cost free", ["'free'", "0,1,5"]),
        ("compare nowhere --gradient-cost -1", ["'-1'", "0,1,5"]),
        ("compare nowhere --gradient-cost 1 --view time", ["--view time"]),
        ("compare nowhere --config none.yaml", ["none.yaml"]),
        ("plot nowhere", ["nowhere"]),
        ("plot nowhere --kind pie", ["'pie'", "ecdf"]),
    ],
)
def test_a_bad_command_is_refused_in_one_sentence(place: Path, line: str, texts: list[str]) -> None:
    before = tree(place)
    refuse(call(line), *texts)
    assert tree(place) == before


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (None, ["No such file"]),
        ("algo: [ga", ["not YAML"]),
        ("- ga\n- de\n", ["not a mapping"]),
        ("", ["not a mapping"]),
        ("1: 2", ["not a mapping"]),
        ("algo: ga\nfn: sphere", ["'dim'"]),
        ("{algo: ga, fn: sphere, dim: 2, budgett: 9}", ["'budgett'", "budget"]),
        ("{algo: [], fn: sphere, dim: 2}", ["no algorithm"]),
        ("{algo: gaa, fn: sphere, dim: 2}", ["'gaa'", "cmaes_diff"]),
        ("{algo: {a: 1}, fn: sphere, dim: 2}", ["'a'", "algo"]),
        ("{algo: ga, fn: sphere, dim: [[2]]}", ["[2]", "dim"]),
        ("{algo: ga, fn: sphere, dim: 2, seeds: []}", ["seeds", SEEDS]),
        ("{algo: ga, fn: sphere, dim: 2, seeds: 1.5}", ["1.5", "seeds"]),
        ("{algo: ga, fn: sphere, dim: 2, settings: [1]}", ["[1]", "settings"]),
        ("{algo: ga, fn: sphere, dim: 2, settings: {ga: 3}}", ["3", "settings.ga"]),
        ("{algo: ga, fn: sphere, dim: 2, settings: {ga: {eta: 3}}}", ["'eta'", "eta_c"]),
        ("{algo: ga, fn: sphere, dim: 2, settings: {pso: {adaptive: true}}}", ["'pso'", "ga"]),
        ("{algo: ga, fn: sphere, dim: 2, name: ../x}", ["'../x'"]),
    ],
)
def test_a_bad_config_is_refused_in_one_sentence(place: Path, content: str | None, texts: list[str]) -> None:
    if content is not None:
        (place / "config.yaml").write_text(content)
    before = tree(place)
    refuse(call("run config.yaml"), *texts)
    assert tree(place) == before


def test_an_absent_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    refuse(call("run --algo ga_diff --fn sphere --dim 2 --device cuda"), "'cuda'", "cpu")


def test_a_bad_variable_is_named() -> None:
    refuse(call("run --algo ga --fn sphere --dim 2", EVOBENCH_BUDGET="lots"), "'lots'", "budget")
    refuse(call("run --algo ga --fn sphere --dim 2", EVOBENCH_FRESH="maybe"), "'maybe'", "EVOBENCH_FRESH")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a directory where even root cannot write")
def test_an_unwritable_directory_is_refused() -> None:
    refuse(call(f"run --algo ga {SMALL} --out /proc/evobench"), "/proc/evobench")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_forbidden_directory_is_refused(place: Path) -> None:
    (place / "closed").mkdir(mode=0o500)
    refuse(call(f"run --algo ga {SMALL} --out closed/results"), "closed/results", "ermission denied")


def write_foreign(path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), path)


def write_truncated(path: Path) -> None:
    whole = next(path.parent.iterdir()).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize("write", [write_foreign, write_truncated])
@pytest.mark.parametrize(
    "line",
    ["compare stored", "plot stored", f"run --algo ga {SMALL} --out stored", f"run --algo de {SMALL} --out stored"],
)
def test_results_that_are_not_ours_are_refused(
    results: Path, place: Path, line: str, write: Callable[[Path], None]
) -> None:
    write(results / "runs" / "foreign.parquet")
    before = tree(place)
    refuse(call(line), "foreign.parquet")
    assert tree(place) == before


# Terminals, pipes and signals


def test_a_pipe_gets_plain_lines(place: Path) -> None:
    command = [*COMMAND, *f"run --algo ga,de {SMALL}".split()]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert ESCAPE not in done.stdout
    assert "\r" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0] == "2 cells, 6 runs: 0 stored, 6 to run"
    assert [line.split()[0] for line in lines[1:7]] == [f"{n}/6" for n in range(1, 7)]
    assert len(load_results(place / "results" / "adhoc")) == 6


def test_a_terminal_shows_bars_and_the_table(place: Path) -> None:
    line = "run --algo ga,cmaes_diff --fn sphere --dim 2 --pop 10 --budget 1500 --seeds 3 --jobs 2"
    variables = environment(TERM="xterm-256color", PYTHONUTF8="1")
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        variables.pop(name, None)
    child = pexpect.spawn(
        COMMAND[0], [*COMMAND[1:], *line.split()], env=variables, dimensions=(30, 100), encoding="utf-8", timeout=60
    )
    child.expect("2 cells, 6 runs: 0 stored, 6 to run")
    child.expect("all runs")
    child.expect("left")
    child.expect(r"ga sphere 2D\W.*\d/3 runs +\d")
    child.expect("6/6 runs")
    child.expect("algorithm.*median.*stopped by")
    child.expect("sphere 2D")
    child.expect("  ga .*budget")
    child.expect("6 runs computed, 0 found, in results/adhoc")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert len(load_results(place / "results" / "adhoc")) == 6


LONG = "run --algo ga --fn sphere --dim 2 --pop 20 --budget 4000 --seeds 5"


def interrupt(awaited: str, pause: float = 0, *, jobs: int = 2, number: int = signal.SIGINT) -> None:
    """Start LONG, press Ctrl-C or send SIGTERM once it has said `awaited`, and check how it leaves."""
    process = subprocess.Popen(
        [*COMMAND, *LONG.split(), "--jobs", str(jobs)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert any(line.startswith(awaited) for line in process.stdout)
    time.sleep(pause)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert errors == "stopped: everything finished is kept, and the same command goes on from there\n"
    wait_until_gone(process.pid)


def test_ctrl_c_while_the_workers_start() -> None:
    interrupt("1 cell, 5 runs: 0 stored, 5 to run", pause=0.5)


def test_ctrl_c_keeps_what_is_finished(place: Path) -> None:
    interrupt("1/5 ")
    kept = len(load_results("results/adhoc"))
    assert 1 <= kept < 5
    result = call(f"{LONG} --jobs 1")
    assert result.exit_code == 0
    assert f"{5 - kept} runs computed, {kept} found" in result.stdout
    assert list(load_results("results/adhoc")["seed"]) == list(range(5))


@pytest.mark.parametrize("jobs", [1, 2])
def test_sigterm_is_another_ctrl_c(place: Path, jobs: int) -> None:
    interrupt("1/5 ", jobs=jobs, number=signal.SIGTERM)
    assert 1 <= len(load_results("results/adhoc")) < 5
    assert not list((place / "results" / "adhoc" / "leases").glob("*"))


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_waits_for_a_safe_moment(number: signal.Signals, error: type[KeyboardInterrupt]) -> None:
    """Raised amid `concurrent.futures.wait` it would leave a lock taken, for which the pool waits forever."""
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with terminable(), held() as raise_interrupt:
        raise_interrupt()
        signal.raise_signal(number)
        with pytest.raises(error):
            raise_interrupt()
        raise_interrupt()
    with terminable(), pytest.raises(error), held():
        signal.raise_signal(number)
    with terminable(), pytest.raises(error), held():
        fail_after(number)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def fail_after(number: signal.Signals) -> NoReturn:
    signal.raise_signal(number)
    raise OSError("disk full")


def wait_until_gone(group: int) -> None:
    """Wait for the last process of a group."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("a process outlived its run")


def test_also_from_the_command_line(place: Path) -> None:
    """Products beyond the top level appear in the table; flags hold for every product, --seeds for the whole."""
    content = {"algo": "pso_diff", "fn": "sphere", "dim": 3, "pop": 10, "budget": 100}
    also = [{"algo": "de_plain", "dim": 4, "fn": "ackley"}, {"algo": "pso_diff", "init": "centre"}]
    Path("mine.yaml").write_text(yaml.safe_dump(content | {"also": also}))
    done = call("run mine.yaml --seeds 2 --set de_plain.scale_factor=0.7 --out r")
    assert done.exit_code == 0, done.stderr
    assert "6 runs computed" in done.stdout
    for text in ("sphere 3D", "ackley 4D", "de_plain", "pso_diff@centre", "pso_diff@uniform"):
        assert text in done.stdout
    done = call("run mine.yaml --seeds 2 --algo pso_diff --out r2")
    assert done.exit_code == 0, done.stderr


def test_verify_from_the_command_line(place: Path) -> None:
    """A function of one's own is found as `run` finds it, and missing runs are exit code 1."""
    Path("pkg").mkdir()
    Path("pkg/mine.py").write_text("def f(x):\n    return x.square().sum(-1)\n")
    run = "run --fn pkg.mine:f,sphere --dim 3 --budget 100 --pop 10 --out r"
    assert call(f"{run} --algo pso_diff --seeds 2").exit_code == 0
    done = call("verify r")
    assert (done.exit_code, done.stdout) == (0, "4 files, 4 runs: all in order\n")
    assert call(f"{run} --algo de_plain --seeds 1").exit_code == 0
    done = call("verify r")
    assert done.exit_code == 1
    assert done.stdout.endswith("8 files, 6 runs: 2 findings\n")
    assert "is incomplete: 1 of 2 seeds are missing" in done.stdout
    Path("pkg/mine.py").unlink()
    del sys.modules["pkg.mine"]
    importlib.invalidate_caches()
    done = call("verify r")
    assert done.exit_code == 1
    assert done.stdout.count("pkg.mine:f 3D: cannot be evaluated again: cannot load the function") == 1  # of two cells
