"""The page of `evobench claims`: verdicts first, then what each rests on, in three formats."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal, get_args

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from evobench.claims import SEEDS, Finding, Judgement
from evobench.tables import MISSING, number, plain

Format = Literal["table", "markdown", "json"]

OUTCOME = {True: "holds", False: "fails", None: "open"}
MARK = {True: "+", False: "-", None: "?"}

HEADERS = ("", "what the paper claims", "paper's protocol", "fair", "verdict")
EFFECTS = ("where", "what", "runs", "value [95% CI]", "p", "")

NOTE = (
    "A star: decided, whatever the missing runs will say. Open: they could still decide it. p: two-sided, after Holm's "
    "correction with the missing tests counted in."
)


def render(judgements: Sequence[Judgement], format: Format) -> str:
    """The page as text, ending in a newline. `json` has every number.

    Raises:
        ValueError: if the format is unknown.
    """
    match format:
        case "table":
            return plain(terminal(judgements))
        case "markdown":
            return _markdown(judgements)
        case "json":
            return (
                json.dumps([_record(found) for found in judgements], indent=2, ensure_ascii=False, allow_nan=False)
                + "\n"
            )
    raise ValueError(f"unknown format '{format}': choose from {', '.join(get_args(Format))}")


def terminal(judgements: Sequence[Judgement]) -> Group:
    """The page for `rich`."""
    top = _table(HEADERS)
    for judgement in judgements:
        top.add_row(*overview(judgement))
    parts: list[RenderableType] = [top, Text()]
    for judgement in judgements:
        claim = judgement.claim
        parts += [
            Text(f"{claim.id}  {claim.sentence}: {judgement.verdict}", style="bold"),
            Padding(Text(f'{claim.section}: "{claim.quote}"', style="italic"), (0, 0, 0, 4)),
            Padding(Text(f"Rule: {claim.rule}"), (0, 0, 0, 4)),
        ]
        for name, finding in findings(judgement):
            parts.append(
                Padding(
                    Text(f"{name} ({finding.source}): {outcome(finding)}"),
                    (0, 0, 0, 4),
                )
            )
            parts += [Padding(Text(f"{MARK[part.holds]} {part.text}"), (0, 0, 0, 6)) for part in finding.parts]
            if finding.effects:
                table = _table(EFFECTS, left=2)
                for row in effects(finding):
                    table.add_row(*row)
                parts.append(Padding(table, (0, 0, 0, 6)))
            if finding.missing:
                parts.append(Padding(Text(missing(finding)), (0, 0, 0, 6)))
        parts.append(Text())
    return Group(*parts, Text(f"{NOTE} (+) holds, (-) fails, (?) open."))


def _table(headers: Sequence[str], left: int = 2) -> Table:
    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
    for index, header in enumerate(headers):
        table.add_column(header, justify="left" if index < left or index == len(headers) - 1 else "right")
    return table


def overview(judgement: Judgement) -> list[str]:
    claim, fair = judgement.claim, judgement.fair
    outcomes = [
        MISSING if claim.lacking or finding is None else outcome(finding) for finding in (judgement.paper, fair)
    ]
    return [claim.id, claim.sentence, *outcomes, judgement.verdict]


def outcome(finding: Finding) -> str:
    """What a finding says; a star where that is decided although it is incomplete."""
    if not finding.parts:
        return "for information"
    return OUTCOME[finding.holds] + "*" * (finding.holds is not None and bool(finding.missing))


def findings(judgement: Judgement) -> list[tuple[str, Finding]]:
    both = {"paper's protocol": judgement.paper, "fair": judgement.fair}
    return [(name, finding) for name, finding in both.items() if finding is not None]


def effects(finding: Finding) -> list[list[str]]:
    return [
        [
            effect.where,
            effect.what,
            effect.runs,
            f"{effect.value:.2f} [{effect.low:.2f}, {effect.high:.2f}]",
            MISSING if effect.p is None else number(effect.p),
            effect.says,
        ]
        for effect in finding.effects
    ]


def missing(finding: Finding) -> str:
    """What is incomplete, cell by cell or, where these are many, in sum, and what computes it."""
    parts = []
    for algo, cells in finding.missing.items():
        few = ", ".join(f"{problem} {runs}/{SEEDS}" for problem, runs in cells.items())
        parts.append(
            f"{algo} {few if len(cells) <= 2 else f'{sum(cells.values())}/{SEEDS * len(cells)} in {len(cells)} cells'}"
        )
    return f"Incomplete (runs): {'; '.join(parts)}. To compute them: {finding.command}"


def _record(judgement: Judgement) -> dict[str, Any]:
    claim = judgement.claim
    facts = {name: getattr(claim, name) for name in ("id", "sentence", "section", "quote", "rule", "lacking")}
    findings = {"paper": judgement.paper, "fair": judgement.fair}
    return {**facts, "verdict": judgement.verdict, **{name: _finding(found) for name, found in findings.items()}}


def _finding(finding: Finding | None) -> dict[str, Any] | None:
    if finding is None:
        return None
    return {
        "source": finding.source,
        "holds": finding.holds,
        "parts": [part._asdict() for part in finding.parts],
        "effects": [effect._asdict() for effect in finding.effects],
        "missing": finding.missing,
        "command": finding.command,
    }


def _markdown(judgements: Sequence[Judgement]) -> str:
    lines = [*_rows(HEADERS, [overview(judgement) for judgement in judgements]), "", NOTE, ""]
    for judgement in judgements:
        claim = judgement.claim
        lines += [f"### {claim.id}: {claim.sentence}", "", f"> {claim.quote} ({claim.section})", ""]
        lines += [f"**Verdict: {judgement.verdict}.** Rule: {claim.rule}", ""]
        for name, finding in findings(judgement):
            heading = f"*{name.capitalize()}* (`{finding.source}`)"
            lines += [f"{heading}: {_escape(outcome(finding))}", ""]
            lines += [f"- {OUTCOME[part.holds]}: {part.text}" for part in finding.parts] + [""] * bool(finding.parts)
            if finding.effects:
                lines += [*_rows(EFFECTS, effects(finding)), ""]
            if finding.missing:
                lines += [f"{missing(finding).replace(finding.command, f'`{finding.command}`')}", ""]
    return "\n".join(lines).rstrip() + "\n"


def _rows(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A GitHub table."""
    return [f"| {_escape(' | '.join(row))} |" for row in (headers, ["---"] * len(headers), *rows)]


def _escape(text: str) -> str:
    """A star as itself, not as emphasis."""
    return text.replace("*", r"\*")
