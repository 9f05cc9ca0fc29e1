"""Plots as inline SVG whose bytes depend on the numbers alone. No clock, no user's matplotlibrc, no outside address."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.look.canvas import BAND, COLOURS, MUTED, canvas
from pipeline.publish.figures import SMALL, Group

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def bars(name: str, groups: Sequence[Group], x: str, y: str, *, band: str | None = None) -> str:
    """Return a bar per group; a group kept back has no bar but the mark `<10`. `band` is the label to shade."""
    with canvas(name, x, y) as drawing:
        axes = drawing.axes
        if band is not None and band in [g.label for g in groups]:
            at = [g.label for g in groups].index(band)
            axes.axvspan(at - 0.5, at + 0.5, color=BAND, zorder=0)
        axes.bar(range(len(groups)), [g.n if g.shown else 0 for g in groups], width=0.78, color=COLOURS[0])
        _marks(axes, [(i, g) for i, g in enumerate(groups)])
        _labels(axes, [g.label for g in groups])
        axes.set_ylim(0, max([g.n for g in groups if g.shown], default=0) * 1.05 or 1)
    return drawing.svg


def pairs(name: str, groups: dict[str, list[Group]], x: str, y: str) -> str:
    """Return bars side by side: an entry per position, a colour per group in it (R, L, B)."""
    with canvas(name, x, y) as drawing:
        axes = drawing.axes
        sides = len(next(iter(groups.values())))
        width = 0.8 / sides
        names = {"R": "Right", "L": "Left", "B": "Both"}
        for side in range(sides):
            row = [entry[side] for entry in groups.values()]
            at = [i - 0.4 + width * (side + 0.5) for i in range(len(row))]
            label = names[row[0].label.rsplit(" ", 1)[1]]
            axes.bar(at, [g.n if g.shown else 0 for g in row], width=width * 0.94, color=COLOURS[side], label=label)
            _marks(axes, list(zip(at, row, strict=True)))
        _labels(axes, list(groups))
        axes.set_ylim(0, max([g.n for entry in groups.values() for g in entry if g.shown], default=0) * 1.18 or 1)
        axes.legend(frameon=False, ncols=sides, loc="upper right", borderaxespad=0)
    return drawing.svg


def quartiles(name: str, groups: Sequence[Group], x: str, y: str, *, band: str) -> str:
    """Return median and quartiles (`extra`) per group as points with whiskers, one band shaded."""
    with canvas(name, x, y) as drawing:
        axes = drawing.axes
        labels = [g.label for g in groups]
        if band in labels:
            at = labels.index(band)
            axes.axvspan(at - 0.5, at + 0.5, color=BAND, zorder=0)
        shown = [(i, [float(v or 0) for v in g.extra]) for i, g in enumerate(groups) if g.shown]
        axes.vlines(
            [i for i, _ in shown],
            [v[0] for _, v in shown],
            [v[2] for _, v in shown],
            color=COLOURS[0],
            linewidth=7,
            alpha=0.3,
        )
        axes.plot([i for i, _ in shown], [v[1] for _, v in shown], "o", color=COLOURS[0], markersize=5)
        _marks(axes, list(enumerate(groups)))
        _labels(axes, labels)
        axes.set_xlim(-0.6, len(groups) - 0.4)
        axes.set_ylim(0, max([v[2] for _, v in shown], default=0) * 1.1 or 1)
    return drawing.svg


def _marks(axes: Axes, at: list[tuple[Any, Group]]) -> None:
    for x, group in at:
        if not group.shown:
            text = f"<{SMALL}" if group.people < SMALL else "–"
            axes.annotate(
                text, (x, 0), xytext=(0, 3), textcoords="offset points", ha="center", color=MUTED, fontsize=7.5
            )


def _labels(axes: Axes, labels: Sequence[str]) -> None:
    """Every label where there is room, else every second, third … one."""
    widest = max((len(label) for label in labels), default=1)
    step = max(1, -(-len(labels) * max(widest, 3) // 62))
    axes.set_xticks(range(0, len(labels), step), [labels[i] for i in range(0, len(labels), step)])
    axes.set_xlim(-0.6, len(labels) - 0.4)
