"""The tables of `evobench compare`: what `stats` and `runtimes` found, in five formats.

For people, by problem and with 3 or 4 significant digits: `table` (a terminal), `markdown`, `latex`.
For programs, with every column and digit: `csv`, `json`.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pandas as pd
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from evobench.stats import ALPHA, SUCCESS_TARGETS, TIE, problem_title

Format = Literal["table", "markdown", "csv", "latex", "json"]

Frames = Mapping[str, pd.DataFrame]
"""Tables by name, one of `LAYOUTS`."""

WIDTH = 100
"""Columns of the terminal that `table` is laid out for."""

_LONGEST_WORD = 24

MISSING = "-"
"""Stands where there is no number, such as a success rate without a known optimum."""


@dataclass(frozen=True)
class Block:
    """One table for people.

    Attributes:
        note: what its columns mean.
        stressed: the column in bold, in the rows whose flag is set.
        groups: by problem, the rows: a flag, and the cells' text.
    """

    title: str
    note: str
    headers: tuple[str, ...]
    stressed: int
    groups: dict[str, list[tuple[bool, list[str]]]]


def render(frames: Frames, format: Format) -> str:
    """Tables as text, ending in a newline.

    `table` is plain text (for bold type print `terminal` instead), `markdown` one GitHub table for
    each frame, `latex` one longtable with booktabs' rules. `csv` is one table, whose first column
    says which frame a row is of; columns that do not apply to a row are empty. `json` is one object
    with an array for each frame; what is missing or not finite is null.

    Raises:
        ValueError: if the format is unknown.
    """
    match format:
        case "table":
            return plain(terminal(frames))
        case "markdown":
            return "\n".join(map(markdown, blocks(frames)))
        case "latex":
            return "\n".join(["% \\usepackage{booktabs,longtable}", *map(_latex, blocks(frames))])
        case "csv":
            parts = {name: frame.astype(object) for name, frame in frames.items()}
            return pd.concat(parts, names=["table", None]).reset_index(level="table").to_csv(index=False)
        case "json":
            content = {name: _records(frame) for name, frame in frames.items()}
            return json.dumps(content, indent=2, allow_nan=False) + "\n"
    raise ValueError(f"unknown format '{format}': choose from {', '.join(get_args(Format))}")


def plain(content: RenderableType) -> str:
    """What `rich` prints of it where there is no terminal, `WIDTH` columns wide."""
    text = io.StringIO()
    Console(file=text, width=WIDTH, color_system=None, force_jupyter=False).print(content)
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def terminal(frames: Frames) -> Group:
    """The tables for `rich`, which drops the bold type where the output is not a terminal."""
    return grids(blocks(frames))


def grids(blocks: Iterable[Block]) -> Group:
    """Blocks for `rich`, each with its note below."""
    parts: list[Table | Text] = []
    for block in blocks:
        table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False, title_justify="left", title_style="bold")
        table.title = block.title
        for index, header in enumerate(block.headers):
            table.add_column(Text(header), justify="right" if index else "left", overflow="fold")
        for problem, rows in block.groups.items():
            table.add_row(Text(problem, style="bold"))
            for stress, (name, *cells) in rows:
                texts = (Text(cell, "bold" * (stress and i == block.stressed)) for i, cell in enumerate(cells, 1))
                table.add_row(Text(_in_lines(name)), *texts)
            table.add_section()
        parts += [table, Text(f"\n{block.note}\n")]
    return Group(*parts)


def _in_lines(name: str) -> str:
    """A name, or a pair of them, with a line for each setting where `rich` would break words anywhere."""
    if max(map(len, name.split())) <= _LONGEST_WORD:
        return name
    return name.replace(" vs ", "\nvs ").replace("@", "\n  @")


def blocks(frames: Frames) -> list[Block]:
    """The tables for people; one that would be empty is left out."""
    laid_out = [LAYOUTS[name](frame) for name, frame in frames.items()]
    return [block for block in laid_out if block.groups]


def _summary(frame: pd.DataFrame) -> Block:
    percent = " / ".join(name.removeprefix("success_") for name in SUCCESS_TARGETS)
    return Block(
        title="Best fitness of each run (lower is better)",
        note=f"Success: percent of runs within {percent} of the optimum; {MISSING} where it is unknown.",
        headers=("algorithm", "runs", "median [q1, q3]", "best", "worst", "success"),
        stressed=2,
        groups={problem: _summary_rows(rows) for problem, rows in _by_problem(frame).items()},
    )


def _comparisons(frame: pd.DataFrame) -> Block:
    return Block(
        title="Comparisons",
        note="A12: probability that the first of the two ends lower, ties counted half, with its 95% interval. p: "
        "two-sided, of Mann-Whitney's U, or (W) of Wilcoxon's signed ranks where runs are paired by their noise; after "
        "Holm's correction in each family of tests (each kind of pair, unless --config declares others). Gaps up to "
        f"{number(TIE)} tie. Verdict on the first, at {ALPHA}.",
        headers=("pair", "test", "p", "A12 [95% CI]", "effect", "verdict"),
        stressed=5,
        groups={problem: _comparison_rows(rows) for problem, rows in _by_problem(frame).items()},
    )


def _intervals(frame: pd.DataFrame) -> Block:
    return Block(
        title="Fixed budget: best fitness of each run (lower is better)",
        note="IQR: the distance of the quartiles. Intervals: 95%, percentile bootstrap over runs.",
        headers=("algorithm", "runs", "median [95% CI]", "IQR [95% CI]"),
        stressed=2,
        groups={
            problem: [
                (
                    False,
                    [
                        row["label"],
                        str(row["n"]),
                        _with_interval(row["median"], row["median_low"], row["median_high"]),
                        _with_interval(_distance(row["q1"], row["q3"]), row["iqr_low"], row["iqr_high"]),
                    ],
                )
                for row in rows
            ]
            for problem, rows in _by_problem(frame).items()
        },
    )


def _targets(frame: pd.DataFrame) -> Block:
    groups: dict[str, list[tuple[bool, list[str]]]] = {}
    for problem, rows in _by_problem(frame).items():
        for target in SUCCESS_TARGETS.values():
            lines = [row for row in rows if row["target"] == target]
            if any(row["successes"] for row in lines):
                groups[f"{problem}, gap ≤ {number(target)}"] = _target_rows(lines)
    return Block(
        title="Fixed targets: expected running time to reach a gap (lower is better)",
        note="ERT: evaluations of all runs, each until it reaches the target or ends, by the number of runs that reach "
        "it, with its 95% bootstrap interval; gradients count as the protocol charges them. Rate: with Wilson's 95% "
        "interval. Targets that no run reached are left out.",
        headers=("algorithm", "reached", "rate [95% CI]", "ERT [95% CI]"),
        stressed=3,
        groups=groups,
    )


def _target_rows(rows: list[dict[Hashable, Any]]) -> list[tuple[bool, list[str]]]:
    """The rows of one problem and target; the lowest ERT is stressed."""
    best = min(row["ert"] for row in rows)
    return [
        (
            math.isfinite(best) and row["ert"] == best,
            [
                row["label"],
                f"{row['successes']}/{row['n']}",
                f"{row['rate']:.2f} [{row['rate_low']:.2f}, {row['rate_high']:.2f}]",
                _with_interval(row["ert"], row["ert_low"], row["ert_high"]),
            ],
        )
        for row in rows
    ]


def _seconds(frame: pd.DataFrame) -> Block:
    """A column for each time, which only the values in the frame tell."""
    times = sorted(frame["seconds"].unique())
    groups: dict[str, list[tuple[bool, list[str]]]] = {}
    for problem, rows in _by_problem(frame).items():
        cells: dict[str, list[dict[Hashable, Any]]] = {}
        for row in rows:
            cells.setdefault(row["label"], []).append(row)
        groups[problem] = [
            (False, [label, str(own[0]["n"]), number(own[0]["whole"]), *(number(row["median"]) for row in own)])
            for label, own in cells.items()
        ]
    return Block(
        title="Fixed time: median best fitness after so many seconds of a run (lower is better)",
        note="A run's seconds: its share of the wall time of its batch (time / runs in it), spread evenly over its "
        "evaluations; whole: until its end, after which it keeps its value. One run of a batch by itself would take "
        "longer. Times are of the machine and its load at that time.",
        headers=("algorithm", "runs", "whole", *(f"{number(seconds)} s" for seconds in times)),
        stressed=0,
        groups=groups,
    )


def _prices(frame: pd.DataFrame) -> Block:
    """A column for each price, which only the values in the frame tell."""
    prices = list(dict.fromkeys(frame["price"]))
    groups: dict[str, list[tuple[bool, list[str]]]] = {}
    for problem, rows in _by_problem(frame).items():
        pairs: dict[str, list[dict[Hashable, Any]]] = {}
        for row in rows:
            n_first, n_second = row["n_first"], row["n_second"]
            unequal = f" ({n_first}:{n_second} runs)" if n_first != n_second else ""
            pairs.setdefault(f"{row['first']} vs {row['second']}{unequal}", []).append(row)
        groups[problem] = [
            (False, [pair, *(f"{row['a12']:.2f} {_SHORT[row['verdict']]}" for row in own)])
            for pair, own in pairs.items()
        ]
    least = frame.groupby("price", sort=False)["spent_at"].min()
    shorter = ", ".join(f"{least[price]:,.0f} at {number(price)}" for price in prices if least[price] < max(least))
    lower = f" Below the price that was charged, at what all runs cover (the least: {shorter})." if shorter else ""
    return Block(
        title="Price of a gradient, in evaluations: A12 and verdict on the first",
        note="Stored runs, read where evaluations + price x gradients reach their budget. Verdicts as in the "
        f"comparisons, corrected within each price; {_SHORT['no difference']}: no difference.{lower}",
        headers=("pair", *(number(price) for price in prices)),
        stressed=0,
        groups=groups,
    )


_SHORT = {"better": "better", "worse": "worse", "no difference": "="}

LAYOUTS: dict[str, Callable[[pd.DataFrame], Block]] = {
    "summary": _summary,
    "comparisons": _comparisons,
    "intervals": _intervals,
    "targets": _targets,
    "seconds": _seconds,
    "prices": _prices,
}
"""How each frame is laid out for people."""


def _distance(low: float, high: float) -> float:
    return high - low if math.isfinite(high) else math.inf


def _with_interval(value: float, low: float, high: float) -> str:
    return f"{number(value)} [{number(low)}, {number(high)}]"


def _by_problem(frame: pd.DataFrame) -> dict[str, list[dict[Hashable, Any]]]:
    """Rows by the title of their problem, which names the protocol only where there are several."""
    several = frame["protocol"].nunique() > 1
    groups: dict[str, list[dict[Hashable, Any]]] = {}
    for row in frame.to_dict("records"):
        title = problem_title(row["fn"], row["dim"], row["protocol"] if several else None)
        groups.setdefault(title, []).append(row)
    return groups


def _summary_rows(rows: list[dict[Hashable, Any]]) -> list[tuple[bool, list[str]]]:
    """One problem's rows; the best median is stressed, and where it is solved every one that is."""
    best = min(row["median"] for row in rows)
    lines = []
    for row in rows:
        success = [row[name] for name in SUCCESS_TARGETS]
        known = not math.isnan(success[0])
        cells = [
            row["label"],
            str(row["n"]),
            _with_interval(row["median"], row["q1"], row["q3"]),
            number(row["best"]),
            number(row["worst"]),
            "/".join(f"{100 * share:.0f}" for share in success) if known else MISSING,
        ]
        lines.append((math.isfinite(best) and row["median"] <= best + (TIE if known else 0), cells))
    return lines


def _comparison_rows(rows: list[dict[Hashable, Any]]) -> list[tuple[bool, list[str]]]:
    """One problem's rows; a difference is stressed."""
    return [
        (
            row["verdict"] != "no difference",
            [
                f"{row['first']} vs {row['second']}",
                "W" if row["test"] == "Wilcoxon" else "U",
                number(row["p_holm"]),
                f"{row['a12']:.2f} [{row['a12_low']:.2f}, {row['a12_high']:.2f}]",
                row["magnitude"],
                row["verdict"],
            ],
        )
        for row in rows
    ]


def number(value: float) -> str:
    """Four significant digits, `28.82`; three beside an exponent, `1.23e-10`; `MISSING` for NaN."""
    if math.isnan(value):
        return MISSING
    text = f"{value + 0.0:.4g}"
    if "e" not in text:
        return text
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def _records(frame: pd.DataFrame) -> list[dict[Hashable, Any]]:
    """Rows as JSON can hold them: null for NaN and infinities."""
    return [
        {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()}
        for row in frame.to_dict("records")
    ]


def markdown(block: Block) -> str:
    """The problem in a column of its own, for a GitHub table has no headings inside."""
    lines = [f"**{block.title}**", "", _markdown_row(["problem", *block.headers])]
    lines.append(_markdown_row(["---", "---", *("---:" for _ in block.headers[1:])]))
    for problem, rows in block.groups.items():
        for stress, (name, *cells) in rows:
            if stress:
                cells[block.stressed - 1] = f"**{cells[block.stressed - 1]}**"
            lines.append(_markdown_row([problem, f"`{name}`", *cells]))
    return "\n".join([*lines, "", block.note, ""])


def _markdown_row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _latex(block: Block) -> str:
    """A longtable, since sixteen algorithms on eight problems fill more than a page."""
    columns = len(block.headers)
    header = " & ".join(map(_escape, block.headers)) + r" \\"
    head = [r"\toprule", header, r"\midrule"]
    lines = [
        r"\begingroup\small\setlength{\tabcolsep}{4pt}\setlength{\LTcapwidth}{\linewidth}",
        rf"\begin{{longtable}}{{l{'r' * (columns - 1)}}}",
        rf"\caption{{{_escape(block.title)}. {_escape(block.note)}}} \\",
        *(*head, r"\endfirsthead", *head, r"\endhead", r"\bottomrule", r"\endfoot"),
    ]
    for position, (problem, rows) in enumerate(block.groups.items()):
        lines += [r"\addlinespace"] * (position > 0)
        lines.append(rf"\multicolumn{{{columns}}}{{l}}{{\itshape {_escape(problem)}}} \\")
        for stress, (name, *cells) in rows:
            typeset = [_escape(name), *map(_math, cells)]
            if stress:
                typeset[block.stressed] = rf"{{\bfseries\boldmath {typeset[block.stressed]}}}"
            lines.append(" & ".join(typeset) + r" \\")
    return "\n".join([*lines, r"\end{longtable}\endgroup", ""])


_LATEX = {
    "≤": r"$\leq$",
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
}
_LATEX |= {">": r"\textgreater{}", "|": r"\textbar{}"} | {character: f"\\{character}" for character in "_&%$#{}"}


def _escape(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(_LATEX.get(character, character) for character in text)


def _math(text: str) -> str:
    """A cell with its numbers in LaTeX's mathematics: a true minus and powers of ten."""

    def typeset(match: re.Match[str]) -> str:
        mantissa, exponent = match[1].replace("inf", r"\infty"), match[2]
        return f"${mantissa}$" if exponent is None else rf"${mantissa} \times 10^{{{exponent}}}$"

    return re.sub(r"(-?\d+(?:\.\d+)?|-?inf\b)(?:e(-?\d+))?", typeset, text)
