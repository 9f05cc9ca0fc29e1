"""Plots as inline SVG whose bytes depend on the numbers alone. No clock, no user's matplotlibrc, no outside address."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipeline.publish.figures import SMALL, Group

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, GRID, BAND = "#22303c", "#5d6b78", "#e3e8ec", "#f7e6c4"
COLOURS = ("#1f5f8b", "#d08a2e", "#6a7b53")


class _Canvas:
    """An Axes to draw on; `svg` is set when the drawing is done."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self.svg = ""


@contextmanager
def _canvas(name: str, x: str, y: str) -> Iterator[_Canvas]:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context():
        mpl.rcdefaults()
        # Text stays text: it can be selected, searched and read aloud. Ids are hashed with the plot's name, so two
        # plots in one page do not share one.
        mpl.rcParams.update(
            {
                "svg.fonttype": "none",
                "svg.hashsalt": name,
                "font.size": 9,
                "axes.edgecolor": MUTED,
                "axes.labelcolor": INK,
                "text.color": INK,
                "xtick.color": INK,
                "ytick.color": MUTED,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.spines.left": False,
                "ytick.major.size": 0,
                "xtick.major.size": 0,
                "axes.axisbelow": True,
                "axes.labelsize": 9,
            }
        )
        figure = Figure(figsize=(5.0, 2.9))
        axes = figure.add_axes((0.115, 0.19, 0.87, 0.745))
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        canvas = _Canvas(axes)
        yield canvas
        axes.yaxis.set_major_locator(mpl.ticker.MaxNLocator(5, integer=axes.get_ylim()[1] > 5))
        axes.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda v, _: f"{v:,.0f}" if v == int(v) else f"{v:g}"))
        out = io.StringIO()
        FigureCanvasSVG(figure).print_svg(  # type: ignore[no-untyped-call]
            out, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
        canvas.svg = _inline(out.getvalue())


def _inline(svg: str) -> str:
    """The <svg> element alone, in the page's fonts: no prolog, metadata, namespaces, ids that two plots share."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.S)
    svg = re.sub(
        r'<svg[^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true" focusable="false">', svg, count=1
    )
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", svg)
    return re.sub(r' id="[A-Za-z][\w.]*_\d+"', "", svg).strip()  # names of groups, which nothing refers to


def bars(name: str, groups: Sequence[Group], x: str, y: str, *, band: str | None = None) -> str:
    """Return a bar per group; a group kept back has no bar but the mark `<10`. `band` is the label to shade."""
    with _canvas(name, x, y) as canvas:
        axes = canvas.axes
        if band is not None and band in [g.label for g in groups]:
            at = [g.label for g in groups].index(band)
            axes.axvspan(at - 0.5, at + 0.5, color=BAND, zorder=0)
        axes.bar(range(len(groups)), [g.n if g.shown else 0 for g in groups], width=0.78, color=COLOURS[0])
        _marks(axes, [(i, g) for i, g in enumerate(groups)])
        _labels(axes, [g.label for g in groups])
        axes.set_ylim(0, max([g.n for g in groups if g.shown], default=0) * 1.05 or 1)
    return canvas.svg


def pairs(name: str, groups: dict[str, list[Group]], x: str, y: str) -> str:
    """Return bars side by side: an entry per position, a colour per group in it (R, L, B)."""
    with _canvas(name, x, y) as canvas:
        axes = canvas.axes
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
    return canvas.svg


def quartiles(name: str, groups: Sequence[Group], x: str, y: str, *, band: str) -> str:
    """Return median and quartiles (`extra`) per group as points with whiskers, one band shaded."""
    with _canvas(name, x, y) as canvas:
        axes = canvas.axes
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
    return canvas.svg


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
