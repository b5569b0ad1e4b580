"""Write the README's tables from the committed results.

    python scripts/readme_table.py

Between `<!-- table: DIR DIM -->` and `<!-- end -->` it puts one row an algorithm (a setting of it, where it
has several) and one column a function: the median final best fitness, and the number of runs where it is not 30.
Between `<!-- claims -->` and `<!-- end -->` it puts the verdicts of `evobench claims`.
"""

from __future__ import annotations

import re
from pathlib import Path

from evobench import bar, claims, verdicts
from evobench.stats import summarise
from evobench.store import load_results
from evobench.tables import number

README = Path(__file__).parent.parent / "README.md"


def table(directory: str, dim: int) -> str:
    """The markdown table of one experiment at one dimension."""
    cells = summarise(load_results(README.parent / directory)).query("dim == @dim")
    functions, algorithms = list(cells["fn"].unique()), list(cells["label"].unique())
    lines = [f"| {dim}D | {' | '.join(functions)} |", f"|{' --- |' * (len(functions) + 1)}"]
    for algorithm in algorithms:
        row = [f"`{algorithm}`"]
        for function in functions:
            found = cells[(cells["fn"] == function) & (cells["label"] == algorithm)]
            text = "-" if found.empty else number(found["median"].iloc[0])
            runs = 30 if found.empty else int(found["n"].iloc[0])
            row.append(text if runs == 30 else f"{text} ({runs} runs)")
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def claimed() -> str:
    """The verdicts on the paper's claims, and on our own."""
    results = README.parent / "results"
    source = claims.sources(results)
    return "\n".join(verdicts.summary(claims.judge(results, source=source), bar.judge(results, source)))


def main() -> None:
    text = README.read_text(encoding="utf-8")
    text = re.sub(
        r"(<!-- (?:table: (\S+) (\d+)|claims) -->\n).*?(?=<!-- end -->)",
        lambda found: f"{found[1]}{table(found[2], int(found[3])) if found[2] else claimed()}\n",
        text,
        flags=re.DOTALL,
    )
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
