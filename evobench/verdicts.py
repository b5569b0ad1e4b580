"""The page of `evobench claims`: verdicts first, then what each rests on, in three formats."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from evobench import bar, tables
from evobench.bar import Bar, Contest
from evobench.claims import LARGE, SEEDS, Claim, Finding, Judgement
from evobench.stats import lineage, problem_title
from evobench.tables import MISSING, Block, number, plain

Format = Literal["table", "markdown", "json"]

OUTCOME = {True: "holds", False: "fails", None: "open"}
MARK = {True: "+", False: "-", None: "?"}

HEADERS = ("", "what the paper claims", "paper's protocol", "fair", "verdict")
EFFECTS = ("where", "what", "runs", "value [95% CI]", "p", "")

OWN = "G"
"""The bar's place after C1 to C7."""

ORIGIN = "This is no claim of the paper, but the bar that this project set its own algorithms."

SHORT = {"fitness": "fitness", "evaluations": "evals", "no difference": "="}

NOTE = (
    "A star: decided, whatever the missing runs will say. Open: they could still decide it. p: two-sided, after Holm's "
    "correction with the missing tests counted in."
)


def render(judgements: Sequence[Judgement], format: Format, own: Bar | None = None) -> str:
    """The page as text, ending in a newline; `own` comes after the claims. `json` has every number.

    Raises:
        ValueError: if the format is unknown.
    """
    match format:
        case "table":
            return plain(terminal(judgements, own))
        case "markdown":
            return _markdown(judgements, own)
        case "json":
            records = [_record(found) for found in judgements] + ([] if own is None else [_bar_record(own)])
            return json.dumps(records, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    raise ValueError(f"unknown format '{format}': choose from {', '.join(get_args(Format))}")


def terminal(judgements: Sequence[Judgement], own: Bar | None = None) -> Group:
    """The page for `rich`."""
    top = _table(HEADERS)
    for judgement in judgements:
        top.add_row(*overview(judgement))
    if own is not None:
        top.add_section()
        top.add_row(*bar_overview(own))
    parts: list[RenderableType] = [top, Text()]
    for judgement in judgements:
        claim = judgement.claim
        parts += [
            Text(f"{claim.id}  {claim.sentence}: {judgement.verdict}", style="bold"),
            Padding(Text(f'{claim.section}: "{claim.quote}"', style="italic"), (0, 0, 0, 4)),
            Padding(Text(f"Rule: {claim.rule}"), (0, 0, 0, 4)),
        ]
        if claim.why:
            parts.append(Padding(Text(f"Why: {why(claim)}"), (0, 0, 0, 4)))
        for name, finding in findings(judgement):
            parts += _found(name, finding)
            if finding.effects:
                table = _table(EFFECTS, left=2)
                for row in effects(finding):
                    table.add_row(*row)
                parts.append(Padding(table, (0, 0, 0, 6)))
            parts += _lacking(finding)
        parts.append(Text())
    if own is not None:
        parts += [
            Text(f"{OWN}  {bar.SENTENCE}: {own.verdict}", style="bold"),
            Padding(Text(f"{ORIGIN} Rule: {bar.RULE}"), (0, 0, 0, 4)),
            *_found("fair", own.finding),
            Padding(Text(chosen(own)), (0, 0, 0, 6)),
            *_lacking(own.finding),
            Text(),
            tables.grids([contests(own)]),
        ]
    return Group(*parts, Text(f"{NOTE} (+) holds, (-) fails, (?) open."))


def _found(name: str, finding: Finding) -> list[RenderableType]:
    """What a finding says, and its parts."""
    head = Padding(Text(f"{name} ({finding.source}): {outcome(finding)}"), (0, 0, 0, 4))
    return [head, *(Padding(Text(f"{MARK[part.holds]} {part.text}"), (0, 0, 0, 6)) for part in finding.parts)]


def _lacking(finding: Finding) -> list[RenderableType]:
    return [Padding(Text(missing(finding)), (0, 0, 0, 6))] * bool(finding.missing)


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


def bar_overview(own: Bar) -> list[str]:
    return [OWN, f"(ours) {bar.SENTENCE}", MISSING, outcome(own.finding), own.verdict]


def outcome(finding: Finding) -> str:
    """What a finding says; a star where that is decided although it is incomplete."""
    if not finding.parts:
        return "for information"
    return OUTCOME[finding.holds] + "*" * (finding.holds is not None and bool(finding.missing))


def why(claim: Claim) -> str:
    """What lies behind it, and the ablations that take it apart."""
    return f"{claim.why} See {', '.join(claim.ablations)}." if claim.ablations else claim.why


def findings(judgement: Judgement) -> list[tuple[str, Finding]]:
    both = {"paper's protocol": judgement.paper, "fair": judgement.fair}
    return [(name, finding) for name, finding in both.items() if finding is not None]


def effects(finding: Finding) -> list[list[str]]:
    return [
        [
            effect.where,
            effect.what,
            effect.runs,
            f"{_value(effect.value)} [{_value(effect.low)}, {_value(effect.high)}]",
            MISSING if effect.p is None else number(effect.p),
            effect.says,
        ]
        for effect in finding.effects
    ]


def _value(value: float) -> str:
    """To a hundredth, or where it is smaller to one digit."""
    return f"{value:.2f}" if value == 0 or abs(value) >= 0.005 else f"{value:.0e}"


def missing(finding: Finding) -> str:
    """What is incomplete, cell by cell or, where these are many, in sum, and what computes it."""
    parts = []
    for algo, cells in finding.missing.items():
        few = ", ".join(f"{problem} {runs}/{SEEDS}" for problem, runs in cells.items())
        parts.append(
            f"{algo} {few if len(cells) <= 2 else f'{sum(cells.values())}/{SEEDS * len(cells)} in {len(cells)} cells'}"
        )
    return f"Incomplete (runs): {'; '.join(parts)}. To compute them: {finding.command}"


def chosen(own: Bar) -> str:
    """Which guarded algorithm meets the others, and by what."""
    if own.best is None:
        return "Best guarded algorithm: open."
    ranks = ", ".join(f"{algo} {rank:.2f}" for algo, rank in own.ranks.items())
    return f"Best guarded algorithm: {own.best} (mean ranks among the four: {ranks})."


def contests(own: Bar) -> Block:
    """Every comparison of the bar, by problem; a difference is stressed."""
    groups: dict[str, list[tuple[bool, list[str]]]] = {}
    for contest in own.contests:
        rows = groups.setdefault(problem_title(contest.fn, contest.dim), [])
        rows.append((contest.outcome not in ("open", "no difference"), _contest(contest)))
    return Block(
        title="Guarded algorithms against their plain twins, and the best of them against the others",
        note="By: final fitness (medians shown), or, where half of the runs of both reach a gap of 1e-8, the "
        "evaluations that takes (ERT shown), gradients charged. A12: probability that the first is better, with its "
        "95% interval. p: of Wilcoxon's signed ranks against twins, else of Mann-Whitney's U; Holm's correction over "
        f"all contests with twins, and over the others. Slightly better: significant, A12 below {LARGE}. =: no "
        "difference.",
        headers=("contest", "by", "first", "second", "A12 [95% CI]", "p", "outcome"),
        stressed=6,
        groups=groups,
    )


def _contest(contest: Contest) -> list[str]:
    """A row; a twin goes by its variant."""
    name = f"{contest.first} vs {lineage(contest.second)[1] if contest.second.endswith('_plain') else contest.second}"
    if contest.by is None:
        return [name, *[MISSING] * 5, contest.outcome]
    return [
        name,
        SHORT[contest.by],
        number(contest.first_value),
        number(contest.second_value),
        f"{contest.a12:.2f} [{contest.low:.2f}, {contest.high:.2f}]",
        number(float(f"{contest.p:.2g}")),
        SHORT.get(contest.outcome, contest.outcome),
    ]


def _record(judgement: Judgement) -> dict[str, Any]:
    claim = judgement.claim
    facts = {
        name: getattr(claim, name)
        for name in ("id", "sentence", "section", "quote", "rule", "why", "ablations", "lacking")
    }
    findings = {"paper": judgement.paper, "fair": judgement.fair}
    return {**facts, "verdict": judgement.verdict, **{name: _finding(found) for name, found in findings.items()}}


def _bar_record(own: Bar) -> dict[str, Any]:
    """As a claim's, but for what makes a claim the paper's."""
    rows = [
        {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()}
        for row in (contest._asdict() for contest in own.contests)
    ]
    found = {**(_finding(own.finding) or {}), "best": own.best, "ranks": own.ranks, "contests": rows}
    about = {"id": OWN, "sentence": bar.SENTENCE, "rule": bar.RULE, "why": "", "ablations": (), "lacking": ""}
    return {**about, "verdict": own.verdict, "paper": None, "fair": found}


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


def summary(judgements: Sequence[Judgement], own: Bar | None) -> list[str]:
    """The verdicts alone, as lines of a GitHub table."""
    top = [overview(judgement) for judgement in judgements] + ([] if own is None else [bar_overview(own)])
    return _rows(HEADERS, top)


def _markdown(judgements: Sequence[Judgement], own: Bar | None) -> str:
    lines = [*summary(judgements, own), "", NOTE, ""]
    for judgement in judgements:
        claim = judgement.claim
        lines += [f"### {claim.id}: {claim.sentence}", "", f"> {claim.quote} ({claim.section})", ""]
        lines += [f"**Verdict: {judgement.verdict}.** Rule: {claim.rule}", ""]
        lines += [f"Why: {why(claim)}", ""] if claim.why else []
        for name, finding in findings(judgement):
            lines += _found_markdown(name, finding)
            if finding.effects:
                lines += [*_rows(EFFECTS, effects(finding)), ""]
            lines += _lacking_markdown(finding)
    lines += [] if own is None else _bar_markdown(own)
    return "\n".join(lines).rstrip() + "\n"


def _bar_markdown(own: Bar) -> list[str]:
    lines = [f"### {OWN}: {bar.SENTENCE}", "", f"**Verdict: {own.verdict}.** {ORIGIN} Rule: {bar.RULE}", ""]
    lines += [*_found_markdown("fair", own.finding), chosen(own), "", *_lacking_markdown(own.finding)]
    return [*lines, tables.markdown(contests(own))]


def _found_markdown(name: str, finding: Finding) -> list[str]:
    heading = f"*{name.capitalize()}* (`{finding.source}`)"
    parts = [f"- {OUTCOME[part.holds]}: {part.text}" for part in finding.parts]
    return [f"{heading}: {_escape(outcome(finding))}", "", *parts, *[""] * bool(parts)]


def _lacking_markdown(finding: Finding) -> list[str]:
    return [missing(finding).replace(finding.command, f"`{finding.command}`"), ""] if finding.missing else []


def _rows(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A GitHub table."""
    return [f"| {_escape(' | '.join(row))} |" for row in (headers, ["---"] * len(headers), *rows)]


def _escape(text: str) -> str:
    """A star as itself, not as emphasis."""
    return text.replace("*", r"\*")
