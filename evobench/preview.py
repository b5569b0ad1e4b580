"""A figure in a terminal: every axes of a matplotlib figure in Braille dots, without its fonts and fine print.

Lines, filled boxes and ticks' labels are read off the figure itself, so that the preview shows what the
files show.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy import ndarray
from rich.columns import Columns
from rich.console import Group
from rich.text import Text

DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""Bits of Unicode's Braille patterns, by column and row of the 2 x 4 dots of a character."""

HEIGHT = 9
"""Lines of a panel's canvas."""

DARK = "#000000"
"""Is drawn in the terminal's own colour, which may be light on dark."""


def draw(figure: Figure, width: int) -> Group:
    """The panels of a figure side by side as far as `width` columns hold them, then the legend."""
    figure.draw_without_rendering()  # lays out, so that transforms are known
    several = len(figure.axes) > 1
    each = max(24, (width - 2) // 2) if several and width >= 60 else width
    panels = [draw_panel(ax, each - 1) for ax in figure.axes]
    legend = Text("  ").join(_entries(figure))
    return Group(Columns(panels, padding=(0, 1), width=each - 1) if several else panels[0], legend)


def draw_panel(ax: Axes, width: int) -> Text:
    """Title, canvas with the ends of the y axis, and the labels of the x axis."""
    low, high = (f"{value:.3g}" for value in ax.get_ylim())
    margin = max(len(low), len(high))
    columns = width - margin - 2
    bits = np.zeros((HEIGHT, columns), dtype=int)
    colours = np.full((HEIGHT, columns), "", dtype=object)
    for points, colour in _strokes(ax):
        _stroke(points, colour, bits, colours)
    logarithmic = ", log" if ax.get_yscale() == "log" else ""
    text = Text(f"{ax.get_title()}{logarithmic}".replace("\n", " ")[:width] + "\n", style="bold")
    for row in range(HEIGHT):
        label = high if row == 0 else low if row == HEIGHT - 1 else ""
        text.append(f"{label:>{margin}} │", style="not bold dim")
        for value, colour in zip(bits[row], colours[row], strict=True):
            text.append(chr(0x2800 + value), style=f"not bold {colour}".strip())
        text.append("\n")
    words = [one.get_text() for one in ax.texts]  # "no runs yet"
    text.append(" " * (margin + 2) + (" ".join(words) or _ticks(ax, columns)), style="not bold dim")
    return text


def _ticks(ax: Axes, columns: int) -> str:
    """The x axis: its labels where they are words, else its ends."""
    labels = [(float(place), label.get_text()) for place, label in zip(ax.get_xticks(), ax.get_xticklabels())]  # noqa: B905
    low, high = ax.get_xlim()
    words = [
        (place, label) for place, label in labels if re.search("[A-Za-z]{2}", label) and "mathdefault" not in label
    ]
    if not words:
        ends = f"{low:.3g}", f"{high:.3g}"
        return f"{ends[0]}{ends[1]:>{max(1, columns - len(ends[0]))}}"
    line = [" "] * columns
    for place, label in words:
        start = max(0, min(columns - len(label), round((place - low) / (high - low) * columns - len(label) / 2)))
        line[start : start + len(label)] = label
    return "".join(line).rstrip()


def _strokes(ax: Axes) -> Iterator[tuple[Float[ndarray, "points 2"], str]]:
    """Everything drawn, as polylines in axes coordinates (0 to 1), with its colour."""

    def inside(points: Any, transform: Any) -> Float[ndarray, "points 2"]:
        return np.asarray((transform - ax.transAxes).transform(np.asarray(points, dtype=float)))

    for child in ax.get_children():
        if isinstance(child, Rectangle) and child is not ax.patch:
            corners = inside(child.get_path().vertices, child.get_transform())
            low, high = corners.min(0), corners.max(0)
            for x in np.linspace(low[0], high[0], 5):
                yield np.array([[x, low[1]], [x, high[1]]]), to_hex(child.get_facecolor())
        elif isinstance(child, LineCollection):
            for segment in child.get_segments():
                yield inside(segment, child.get_transform()), to_hex(tuple(np.asarray(child.get_color())[0]))
        elif isinstance(child, Line2D):
            points = inside(child.get_xydata(), child.get_transform())
            if child.get_linestyle() == "None":
                for point in points:
                    yield point[None], to_hex(child.get_color())
            elif child.get_linestyle() != ":":  # a line of reference, such as the floor
                yield points, to_hex(child.get_color())


def _stroke(points: Float[ndarray, "points 2"], colour: str, bits: Any, colours: Any) -> None:
    """Set the dots of a polyline; what lies outside the axes is left out."""
    rows, columns = bits.shape[0] * 4, bits.shape[1] * 2
    scaled = points[np.isfinite(points).all(axis=1)] * (columns - 1, rows - 1)
    pieces = [
        np.linspace(one, other, max(2, int(np.abs(other - one).max()) + 1))
        for one, other in pairwise(scaled)
        if np.abs(other - one).max() < 100 * (columns + rows)
    ]
    for x, y in np.rint(np.concatenate(pieces or [scaled])).astype(int):
        if 0 <= x < columns and 0 <= y < rows:
            row = rows - 1 - y
            bits[row // 4, x // 2] |= DOTS[x % 2][row % 4]
            if colour != DARK or not colours[row // 4, x // 2]:
                colours[row // 4, x // 2] = "" if colour == DARK else colour


def _entries(figure: Figure) -> list[Text]:
    """The legend: a coloured sign and a label each."""
    entries = []
    for legend in figure.legends:
        for handle, label in zip(legend.legend_handles, legend.get_texts(), strict=True):
            if isinstance(handle, Line2D):
                colour = to_hex(handle.get_color())
            else:
                colour = to_hex(handle.get_facecolor()) if isinstance(handle, Rectangle) else DARK
            entries.append(Text.assemble(("■ ", "" if colour == DARK else colour), label.get_text()))
    return entries
