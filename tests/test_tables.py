"""Tables: the same numbers in five formats, each valid in its own language."""

from __future__ import annotations

import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from conftest import Refused
from matplotlib.mathtext import MathTextParser
from rich.console import Console

from evobench import runtimes, stats, tables

Found = dict[str, pd.DataFrame]

FORMATS = ("table", "markdown", "csv", "latex", "json")


def runs_of(algo: str, fn: str, best_f: list[float], known: bool = True, protocol: str = "paper") -> pd.DataFrame:
    identity = {"algo": algo, "fn": fn, "dim": 30, "protocol": protocol, "settings_hash": f"{algo:0<12}"[:12]}
    rows = {"seed": np.arange(len(best_f)), "best_f": best_f, "gap": best_f if known else np.nan}
    return pd.DataFrame({**identity, "budget": 150_000, "shift": 0.0, **rows})


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    """A solved function with huge and tiny values, and one of unknown optimum with a run that diverged."""
    noise = np.linspace(0, 1, 9)
    return pd.concat(
        [
            runs_of("ga", "rosenbrock", list(1e10 * (1 + noise))),
            runs_of("ga_diff", "rosenbrock", list(2e-16 * (1 + noise))),
            runs_of("ga_guarded", "rosenbrock", [0.0] * 9),
            runs_of("de", "rosenbrock", list(7 + noise)),
            runs_of("de_diff", "rosenbrock", list(7 + noise)),
            runs_of("cmaes", "michalewicz", list(-20 - noise), known=False),
            runs_of("cmaes_released", "michalewicz", [np.nan, *(-28.125 - noise[1:])], known=False),
            runs_of("cmaes_diff", "michalewicz", list(-28.75 - noise), known=False),
        ],
        ignore_index=True,
    )


@pytest.fixture(scope="module")
def found(runs: pd.DataFrame) -> Found:
    return tables_of(runs)


def tables_of(runs: pd.DataFrame) -> Found:
    return {"summary": stats.summarise(runs), "comparisons": stats.compare(runs)}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (28.8154, "28.82"),
        (-20.0, "-20"),
        (0.0, "0"),
        (-0.0, "0"),
        (1.23456e-10, "1.23e-10"),
        (1.5e10, "1.5e10"),
        (-12345.6, "-1.23e4"),
        (9999.4, "9999"),
        (0.00012345, "0.0001234"),
        (np.inf, "inf"),
        (np.nan, "-"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert tables.number(value) == text


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_has_every_cell_and_pair(found: Found, form: tables.Format) -> None:
    text = tables.render(found, form)
    assert text.endswith("\n")
    assert not text.endswith("\n\n\n")
    plain = text.replace("\\_", "_")
    for name in ("ga_guarded", "ga_diff", "cmaes_released", "cmaes_diff"):
        assert name in plain
    assert plain.count("better") - plain.count("lower is better") == 5
    assert plain.count("no difference") == 1


def test_an_unknown_format_is_refused(found: Found, refused: Refused) -> None:
    with refused("html", "markdown", "latex"):
        tables.render(found, "html")  # type: ignore[arg-type]


# --- terminal ----------------------------------------------------------------------------------


def test_plain_table_fits_and_is_plain(found: Found) -> None:
    text = tables.render(found, "table")
    assert max(map(len, text.splitlines())) <= tables.WIDTH
    assert "\x1b" not in text
    assert not re.search(r" $", text, re.MULTILINE)
    assert "median [q1, q3]" in text
    assert "A12 [95% CI]" in text
    rows = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
    assert ["ga_diff", "9", "3e-16 [2.5e-16, 3.5e-16]", "2e-16", "4e-16", "100/100/100/100"] in rows
    assert ["ga", "9", "1.5e10 [1.25e10, 1.75e10]", "1e10", "2e10", "0/0/0/0"] in rows
    assert ["cmaes_released", "9", "-28.62 [-28.88, -28.38]", "-29.12", "inf", "-"] in rows
    (pair,) = [row for row in rows if row[0] == "ga_diff vs ga"]
    assert pair[1] == "U"
    assert pair[3:] == ["1.00 [1.00, 1.00]", "large", "better"]


def test_problems_are_apart(found: Found) -> None:
    lines = tables.render(found, "table").splitlines()
    for problem in ("Michalewicz, 30D", "Rosenbrock, 30D"):
        assert lines.count(problem) == 2
    second = lines.index("Rosenbrock, 30D")
    assert lines[second - 1] == ""
    assert lines[second - 2].startswith("cmaes_diff")


def test_the_best_median_and_the_differences_are_bold_on_a_terminal(found: Found) -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system="standard", legacy_windows=False)
    with console.capture() as capture:
        console.print(tables.terminal(found))
    bold = [text.strip() for text in re.findall(r"\x1b\[1m(.*?)\x1b\[0m", capture.get())]
    medians = ["-29.25 [-29.5, -29]", "3e-16 [2.5e-16, 3.5e-16]", "0 [0, 0]"]
    assert [text for text in bold if text[-1:] == "]" and text[0] in "-0123456789"] == medians
    assert bold.count("better") == 5
    assert "no difference" not in bold


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_loses_nothing(found: Found, width: int) -> None:
    text = io.StringIO()
    Console(file=text, width=width, color_system=None).print(tables.terminal(found))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    squeezed = re.sub(r"\s", "", text.getvalue())
    for number in ("-28.62", "3e-16", "1.75e10]", "100/100/"):
        assert number in squeezed


def test_long_names_break_before_a_setting(found: Found) -> None:
    name = "cmaes_diff@reflected_steps=False"
    long = {key: frame.replace("cmaes_diff", name) for key, frame in found.items()}
    text = tables.render(long, "table")
    assert re.search(r"\ncmaes_diff +9 .*\n  @reflected_steps=False\b", text)
    assert re.search(r"\ncmaes_diff .*\n  @reflected_steps=False\nvs cmaes\n", text)
    assert "cmaes_diff@" not in text


def test_protocols_are_named_where_there_are_several() -> None:
    paper, fair = (runs_of("ga", "ackley", [1.0, 2.0], protocol=protocol) for protocol in ("paper", "fair"))
    assert "Ackley, 30D\n" in tables.render(tables_of(paper), "table")
    assert "Ackley, 30D (fair)\n" in tables.render(tables_of(pd.concat([paper, fair])), "table")


@pytest.mark.parametrize("form", FORMATS)
def test_without_pairs_there_is_only_the_summary(form: tables.Format) -> None:
    runs = runs_of("ga", "ackley", [1.0, 2.0])
    text = tables.render(tables_of(runs), form)
    assert "1.5" in text
    assert "Comparisons" not in text


# --- which median is stressed ------------------------------------------------------------------


def stressed(runs: pd.DataFrame) -> list[str]:
    text = tables.render(tables_of(runs), "markdown").split("**Comparisons**")[0]
    return [line.split("`")[1] for line in text.splitlines() if line.count("**") == 2 and "`" in line]


def test_all_that_solve_a_problem_are_stressed() -> None:
    solved = pd.concat([runs_of("ga", "ackley", [1e-9, 1e-9]), runs_of("de", "ackley", [0.0, 0.0])])
    assert stressed(solved) == ["ga", "de"]
    assert stressed(pd.concat([solved, runs_of("pso", "ackley", [1e-7, 1e-7])])) == ["ga", "de"]


def test_without_a_known_optimum_the_lowest_alone_is_stressed() -> None:
    near = [runs_of("ga", "michalewicz", [-1.0], known=False), runs_of("de", "michalewicz", [-1.0 - 1e-9], known=False)]
    assert stressed(pd.concat(near)) == ["de"]


def test_nothing_is_stressed_where_nothing_is_finite() -> None:
    assert stressed(runs_of("ga", "ackley", [np.nan])) == []


# --- formats for documents ---------------------------------------------------------------------


def test_markdown_is_two_rectangular_tables(found: Found) -> None:
    text = tables.render(found, "markdown")
    blocks = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 2
    for block, frame in zip(blocks, found.values(), strict=True):
        rows = block.splitlines()
        assert len(rows) == len(frame) + 2
        assert len({row.count("|") for row in rows}) == 1
        assert set(rows[1]) <= set("|-: ")
    assert "| Rosenbrock, 30D | `ga_guarded` | 9 | **0 [0, 0]** | 0 | 0 | 100/100/100/100 |" in text
    assert "| Rosenbrock, 30D | `ga` | 9 | 1.5e10 [1.25e10, 1.75e10] |" in text


def test_latex_is_well_formed(found: Found) -> None:
    text = tables.render(found, "latex")
    assert text.count(r"\begin{longtable}") == text.count(r"\end{longtable}") == 2
    body = re.sub(r"^%.*$", "", text, flags=re.MULTILINE)
    unescaped = re.sub(r"\\[\\_%&#${}]", "", body)
    depth = np.cumsum([{"{": 1, "}": -1}.get(character, 0) for character in unescaped])
    assert depth.min() == 0
    assert depth[-1] == 0
    assert not re.search(r"[_#%]", re.sub(r"\$[^$]*\$", "", unescaped)), "a special character is not escaped"
    for table, columns in zip(body.split(r"\end{longtable}"), (6, 6), strict=False):
        rows = [line for line in table.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
        rows = [row for row in rows if not row.startswith(r"\caption")]
        assert {row.replace(r"\&", "").count("&") for row in rows} == {columns - 1}
        assert rf"\multicolumn{{{columns}}}{{l}}" in table
    assert not re.search(r"\\\\\s*\[", body), "a row that starts with [ would be an argument of the line break"


def test_latex_sets_numbers_as_mathematics(found: Found) -> None:
    text = tables.render(found, "latex")
    assert r"ga\_diff & $9$ & {\bfseries\boldmath $3 \times 10^{-16}$ [$2.5 \times 10^{-16}$, " in text
    assert r"cmaes\_released & $9$ & $-28.62$ [$-28.88$, $-28.38$] & $-29.12$ & $\infty$ & - \\" in text
    assert not re.search(r"\de-?\d", text.split("Comparisons")[1].split(r"\endfoot")[1])
    parser = MathTextParser("path")
    fragments = set(re.findall(r"\$[^$]*\$", text))
    assert len(fragments) > 20
    for fragment in fragments:
        parser.parse(fragment)


def test_latex_escapes_any_name() -> None:
    runs = runs_of("ga", r"my_pkg.a&b:f{%}#$^~\x", [1.0, 2.0])
    text = tables.render(tables_of(runs), "latex")
    escaped = r"my\_pkg.a\&b:f\{\%\}\#\$\textasciicircum{}\textasciitilde{}\textbackslash{}x, 30D"
    assert escaped in text


# --- formats for programs ----------------------------------------------------------------------


def test_csv_is_one_table_with_every_digit(found: Found) -> None:
    table = pd.read_csv(io.StringIO(tables.render(found, "csv")))
    assert list(table.columns)[:4] == ["table", "fn", "dim", "protocol"]
    for (name, rows), frame in zip(table.groupby("table", sort=False), found.values(), strict=True):
        assert name in ("summary", "comparisons")
        for column in frame.columns:
            read, written = rows[column].reset_index(drop=True), frame[column].reset_index(drop=True)
            if written.dtype == float:
                np.testing.assert_allclose(read.astype(float), written, rtol=1e-15)
            else:
                assert list(read) == list(written), column
        others = [column for column in table.columns if column not in frame.columns and column != "table"]
        assert rows[others].isna().all(axis=None)


def test_json_is_strict_and_complete(found: Found) -> None:
    def no_literals(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    content = json.loads(tables.render(found, "json"), parse_constant=no_literals)
    assert list(content) == ["summary", "comparisons"]
    for rows, frame in zip(content.values(), found.values(), strict=True):
        assert len(rows) == len(frame)
        for row, (_, expected) in zip(rows, frame.iterrows(), strict=True):
            assert list(row) == list(frame.columns)
            for name, value in row.items():
                if value is None:
                    assert not np.isfinite(expected[name])
                else:
                    assert value == expected[name]
    lost = next(row for row in content["summary"] if row["label"] == "cmaes_released")
    assert lost["worst"] is lost["mean"] is lost["success_1e2"] is None
    assert isinstance(lost["n"], int)
    assert isinstance(lost["dim"], int)


# --- other views -------------------------------------------------------------------------------


def history_of(runs: pd.DataFrame) -> pd.DataFrame:
    identity = runs[["algo", "fn", "dim", "seed", "settings_hash"]]
    points = [(100.0, 1e6), (1000.0, 50.0), (150_000.0, runs["best_f"])]
    return pd.concat([identity.assign(evals=evals, best_f=best) for evals, best in points], ignore_index=True)


@pytest.fixture(scope="module")
def views(runs: pd.DataFrame) -> dict[str, Found]:
    spent = runs.assign(f_evals=150_000, g_evals=0, gradient_cost=0.0, stop_reason="budget", wall_s=18.0, batch_size=9)
    spent.loc[spent["algo"].str.contains("_"), "g_evals"] = 1500
    history = history_of(runs)
    return {
        "budget": {"intervals": stats.summarise(runs)},
        "target": {"targets": runtimes.to_targets(history, spent)},
        "time": {"seconds": runtimes.at_seconds(history, spent)},
        "prices": {"prices": runtimes.by_price(history, spent)},
    }


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("view", ["budget", "target", "time", "prices"])
def test_every_view_in_every_format(views: dict[str, Found], view: str, form: tables.Format) -> None:
    text = tables.render(views[view], form)
    assert text.endswith("\n")
    assert "ga_diff" in text.replace("\\_", "_")
    ((name, frame),) = views[view].items()
    match form:
        case "table":
            assert max(map(len, text.splitlines())) <= tables.WIDTH
        case "markdown":
            rows = [line for line in text.splitlines() if line.startswith("|")]
            assert len({row.count("|") for row in rows}) == 1
        case "csv":
            table = pd.read_csv(io.StringIO(text))
            assert set(table["table"]) == {name}
            assert list(table.columns) == ["table", *frame.columns]
            assert len(table) == len(frame)
        case "latex":
            assert text.isascii()
            rows = re.findall(r"^\w.*&.*\\\\$", text, re.MULTILINE)
            assert rows
            assert len({row.count("&") for row in rows}) == 1
        case "json":
            assert [len(rows) for rows in json.loads(text).values()] == [len(frame)]


def test_numbers_of_the_views(views: dict[str, Found]) -> None:
    def rows(view: str) -> list[list[str]]:
        return [re.split(r"\s{2,}", line.strip()) for line in tables.render(views[view], "table").splitlines()]

    assert ["ga_guarded", "9", "0 [0, 0]", "0 [0, 0]"] in rows("budget")
    target = rows("target")
    assert ["Rosenbrock, 30D, gap ≤ 100"] in target
    assert ["ga_guarded", "9/9", "1.00 [0.70, 1.00]", "1000 [1000, 1000]"] in target
    assert ["ga", "0/9", "0.00 [0.00, 0.30]", "inf [inf, inf]"] in target
    assert not any("Michalewicz" in row[0] for row in target), "its optimum is unknown"
    assert ["ga_diff", "9", "2", "50", "3e-16"] in rows("time")
    prices = rows("prices")
    assert next(row for row in prices if row[0] == "pair") == ["pair", "0", "1", "2", "5", "10"]
    (pair,) = [row for row in prices if row[0] == "ga_diff vs ga"]
    # From the first price on, the last recorded point (at 150,000) is beyond what the run could pay for.
    assert pair[1:] == ["1.00 better", *["1.00 better"] * 4]


def test_unequal_numbers_of_runs_are_named(views: dict[str, Found]) -> None:
    frame = views["prices"]["prices"].assign(n_second=5)
    assert "ga_diff vs ga (9:5 runs)" in tables.render({"prices": frame}, "markdown")
