"""The tables of `evobench compare`: what `stats.summarise` and `stats.compare` found, in five formats.

For people, by problem and with 3 or 4 significant digits: `table` (a terminal), `markdown`, `latex`.
For programs, with every column and digit: `csv`, `json`.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pandas as pd
from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from evobench.stats import ALPHA, SUCCESS_TARGETS, TIE, problem_title

Format = Literal["table", "markdown", "csv", "latex", "json"]

WIDTH = 100
"""Columns of the terminal that `table` is laid out for."""

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


def render(summary: pd.DataFrame, comparisons: pd.DataFrame, format: Format) -> str:
    """Both tables as text, ending in a newline.

    `table` is plain text (for bold type print `terminal` instead), `markdown` two GitHub tables,
    `latex` two longtables with booktabs' rules. `csv` is one table, whose first column says
    `summary` or `comparisons`; columns that do not apply to a row are empty. `json` is one object
    with the arrays `summary` and `comparisons`; what is missing or not finite is null.

    Raises:
        ValueError: if the format is unknown.
    """
    match format:
        case "table":
            text = io.StringIO()
            Console(file=text, width=WIDTH, color_system=None, force_jupyter=False).print(
                terminal(summary, comparisons)
            )
            return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())
        case "markdown":
            return "\n".join(markdown(block) for block in _blocks(summary, comparisons))
        case "latex":
            tables = [_latex(block) for block in _blocks(summary, comparisons)]
            return "\n".join(["% \\usepackage{booktabs,longtable}", *tables])
        case "csv":
            parts = {"summary": summary.astype(object), "comparisons": comparisons.astype(object)}
            return pd.concat(parts, names=["table", None]).reset_index(level="table").to_csv(index=False)
        case "json":
            content = {"summary": _records(summary), "comparisons": _records(comparisons)}
            return json.dumps(content, indent=2, allow_nan=False) + "\n"
    raise ValueError(f"unknown format '{format}': choose from {', '.join(get_args(Format))}")


def terminal(summary: pd.DataFrame, comparisons: pd.DataFrame) -> Group:
    """Both tables for `rich`, which drops the bold type where the output is not a terminal."""
    return grids(_blocks(summary, comparisons))


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
            for stress, cells in rows:
                table.add_row(*(Text(cell, "bold" * (stress and i == block.stressed)) for i, cell in enumerate(cells)))
            table.add_section()
        parts += [table, Text(f"\n{block.note}\n")]
    return Group(*parts)


def _blocks(summary: pd.DataFrame, comparisons: pd.DataFrame) -> list[Block]:
    """The two tables for people; one that would be empty is left out."""
    percent = " / ".join(name.removeprefix("success_") for name in SUCCESS_TARGETS)
    blocks = [
        Block(
            title="Best fitness of each run (lower is better)",
            note=f"Success: percent of runs within {percent} of the optimum; {MISSING} where it is unknown.",
            headers=("algorithm", "runs", "median [q1, q3]", "best", "worst", "success"),
            stressed=2,
            groups={problem: _summary_rows(rows) for problem, rows in _by_problem(summary).items()},
        ),
        Block(
            title="Comparisons",
            note="A12: probability that the first of the two ends lower, ties counted half, with its 95% interval. "
            f"p: two-sided Mann-Whitney U, Holm's correction over each kind of pair. Verdict on the first, at {ALPHA}.",
            headers=("pair", "p", "A12 [95% CI]", "effect", "verdict"),
            stressed=4,
            groups={problem: _comparison_rows(rows) for problem, rows in _by_problem(comparisons).items()},
        ),
    ]
    return [block for block in blocks if block.groups]


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
            f"{number(row['median'])} [{number(row['q1'])}, {number(row['q3'])}]",
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
    return "\n".join([*lines, r"\end{longtable}", ""])


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}"}
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
