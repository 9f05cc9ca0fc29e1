"""The plots of audits, as inline SVG in the house's style. Colours tell apart for people who see few; marks differ too.

Labels are text of the tables and are escaped by the SVG writer; `$` is shown as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.look.canvas import BAND, GRID, INK, MUTED, Canvas, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette: Color Universal Design, 2008.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS = ("o", "s", "^", "D", "v", "P", "X")
DEPTHS = ("#d3e3f0", "#8fbbd9", "#3d86b8", "#0b3c66")     # one hue, light to dark
WIDE, WIDE_FRAME = (10.3, 3.9), (0.058, 0.14, 0.93, 0.82)


def plain(text: str) -> str:
    """Return text that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")


def stamp(drawing: Canvas, words: str, wide: bool = False) -> None:
    """Write `words` across the plot, over everything: a watermark."""
    if words:
        drawing.axes.text(0.5, 0.5, words, transform=drawing.axes.transAxes, ha="center", va="center", rotation=18,
                          fontsize=26 if wide else 17, color="#9a3412", alpha=0.28, fontweight="bold", zorder=20)


def _every(axes: Axes, step: float | None) -> None:
    """Ticks of x at multiples of `step`, with the grid."""
    import matplotlib as mpl

    if step:
        axes.xaxis.set_major_locator(mpl.ticker.MultipleLocator(step))
        axes.grid(axis="x", color=GRID, linewidth=0.8)


def density(
    name: str, bins: Sequence[tuple[float, float, int]], width: float, height: float, x: str, y: str, *,
    minimum: int, line: Sequence[tuple[float, float, float, float]] = (), band: tuple[float, float] | None = None,
    diagonal: bool = False, watermark: str = "", wide: bool = True, every: float | None = None,
) -> str:
    """Return bins (left, bottom, people) as tiles, darker for more people; `line` is (x, lower, middle, upper).

    Every bin is drawn: whoever calls leaves out the small ones.
    """
    from matplotlib.collections import PolyCollection
    from matplotlib.patches import Patch

    size = {"size": WIDE, "frame": WIDE_FRAME} if wide else {}
    with canvas(name, x, y, numbers="y" if every else "xy", **size) as drawing:  # type: ignore[arg-type]
        axes = drawing.axes
        _every(axes, every)
        if band:
            axes.axvspan(*band, color=BAND, zorder=0, linewidth=0)
        steps = (minimum, 2 * minimum, 5 * minimum, 20 * minimum)
        legend: list[Any] = []
        for depth, (least, most) in enumerate(zip(steps, (*steps[1:], None), strict=True)):
            tiles = [(a, b) for a, b, people in bins if least <= people and (most is None or people < most)]
            if depth == 0:      # with internal disclosure a bin may hold fewer people than the least
                tiles += [(a, b) for a, b, people in bins if people < least]
            if tiles:
                corners = [[(a, b), (a + width, b), (a + width, b + height), (a, b + height)] for a, b in sorted(tiles)]
                axes.add_collection(PolyCollection(corners, facecolor=DEPTHS[depth], edgecolor="white", linewidth=0.4))
                text = f"{least:,}–{most - 1:,} people" if most else f"{least:,} people and more"
                legend.append(Patch(facecolor=DEPTHS[depth], label=text))
        if line:
            axes.fill_between([p[0] for p in line], [p[1] for p in line], [p[3] for p in line], color=COLOURS[1],
                              alpha=0.22, linewidth=0, zorder=4)
            legend += axes.plot([p[0] for p in line], [p[2] for p in line], "-o", color=COLOURS[1], markersize=4.5,
                                linewidth=1.8, zorder=5, label="median, and the middle half")
        across = [a for a, _, _ in bins] + [p[0] for p in line]
        right = max(across, default=0) + width
        top = max([b for _, b, _ in bins] + [p[3] for p in line], default=0) + height
        left = min(across, default=0)
        if diagonal:
            left, right = 0, max(right, top)
            legend += axes.plot([0, right], [0, right], "--", color=MUTED, linewidth=1.1, zorder=3, label="equal")
        axes.set_xlim(left - width, right + width)
        axes.set_ylim(0, top * 1.06 or 1)
        if legend:
            axes.legend(handles=legend, frameon=False, loc="lower right", borderaxespad=0.2, fontsize=8.5,
                        ncols=2 if wide else 1)
        stamp(drawing, watermark, wide)
    return drawing.svg


def scatter(
    name: str, points: Sequence[tuple[float, float]], x: str, y: str, *,
    line: Sequence[tuple[float, float, float, float]] = (), band: tuple[float, float] | None = None,
    diagonal: bool = False, watermark: str = "", wide: bool = True, every: float | None = None,
) -> str:
    """Return a point an exposure. It shows individuals: never outside the environment."""
    size = {"size": WIDE, "frame": WIDE_FRAME} if wide else {}
    with canvas(name, x, y, numbers="y" if every else "xy", **size) as drawing:  # type: ignore[arg-type]
        axes = drawing.axes
        _every(axes, every)
        if band:
            axes.axvspan(*band, color=BAND, zorder=0, linewidth=0)
        axes.scatter([p[0] for p in points], [p[1] for p in points], s=7, color=COLOURS[0], alpha=0.35, linewidths=0)
        if line:
            axes.plot([p[0] for p in line], [p[2] for p in line], "-o", color=COLOURS[1], markersize=4.5, zorder=5)
        end = max([max(p) for p in points], default=1)
        if diagonal:
            axes.plot([0, end], [0, end], "--", color=MUTED, linewidth=1.1)
        axes.set_ylim(0, max([p[1] for p in points], default=1) * 1.06)
        axes.text(0.995, 0.99, "INTERNAL: INDIVIDUALS", transform=axes.transAxes, ha="right", va="top",
                  color="#9a3412", fontweight="bold")
        stamp(drawing, watermark, wide)
    return drawing.svg


def curves(
    name: str, series: Mapping[str, Sequence[tuple[float, float]]], x: str, y: str, *,
    band: tuple[float, float] | None = None, watermark: str = "", every: float | None = None,
) -> str:
    """Return a line a series, at most as many as there are colours."""
    with canvas(name, x, y, numbers="y" if every else "xy") as drawing:
        axes = drawing.axes
        _every(axes, every)
        if band:
            axes.axvspan(*band, color=BAND, zorder=0, linewidth=0)
        for n, (label, points) in enumerate(series.items()):
            axes.plot([p[0] for p in points], [p[1] for p in points], color=COLOURS[n % 7], marker=MARKS[n % 7],
                      markersize=4.5, linewidth=1.4, label=plain(label), zorder=3)
        axes.set_ylim(0, max((p[1] for points in series.values() for p in points), default=1) * 1.12)
        if series:
            axes.legend(frameon=False, loc="lower right", borderaxespad=0.2, fontsize=8, ncols=2)
        stamp(drawing, watermark)
    return drawing.svg


def ranges(
    name: str, rows: Sequence[tuple[str, float, float, float]], x: str, *, mark: float | None = None,
    zero: bool = True, watermark: str = "",
) -> str:
    """Return (label, lower, middle, upper) a row, from the top: a point with its range; nothing for no row."""
    if not rows:
        return ""
    with _rows(name, [row[0] for row in rows], x) as drawing:
        axes = drawing.axes
        at = range(len(rows))
        if mark is not None:
            axes.axvline(mark, color=MUTED, linewidth=1, linestyle="--", zorder=1)
        axes.hlines(at, [r[1] for r in rows], [r[3] for r in rows], color=COLOURS[0], linewidth=6, alpha=0.32, zorder=2)
        axes.plot([r[2] for r in rows], at, "o", color=COLOURS[0], markersize=5.5, zorder=3)
        top = max([r[3] for r in rows] + ([mark] if mark is not None else []), default=1)
        if zero:
            axes.set_xlim(0, top * 1.08 or 1)
        stamp(drawing, watermark)
    return drawing.svg


def stacked(name: str, rows: Mapping[str, Mapping[str, float]], x: str, parts: Sequence[str], *,
            legend: bool = True) -> str:
    """Return a bar a row, made of `parts` from the left."""
    if not rows:
        return ""
    with _rows(name, list(rows), x, room=0.32 if legend else 0.0) as drawing:
        axes = drawing.axes
        start = [0.0] * len(rows)
        for n, part in enumerate(parts):
            lengths = [float(row.get(part, 0)) for row in rows.values()]
            axes.barh(range(len(rows)), lengths, left=start, height=0.62, color=COLOURS[n % 7],
                      alpha=1 if n < 7 else 0.55, edgecolor="white", linewidth=0.8, label=plain(part))
            start = [a + b for a, b in zip(start, lengths, strict=True)]
        axes.set_xlim(0, max(start, default=1) * 1.02 or 1)
        if legend:
            axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1.0), ncols=4, borderaxespad=0.3,
                        fontsize=8, handlelength=1.2, columnspacing=1.2)
    return drawing.svg


def steps(name: str, series: Mapping[str, Mapping[float, float]], width: float, x: str, y: str) -> str:
    """Return a histogram in outline per series: share of the series by the left edge of its bins."""
    with canvas(name, x, y, numbers="xy") as drawing:
        axes = drawing.axes
        for n, (label, shares) in enumerate(series.items()):
            edges = sorted(shares)
            xs = [v for edge in edges for v in (edge, edge + width)]
            ys = [v for edge in edges for v in (shares[edge], shares[edge])]
            axes.plot(xs, ys, color=COLOURS[n % 7], linewidth=1.7, linestyle=("-", "--", "-.", ":")[n % 4],
                      label=plain(label))
        axes.set_ylim(0, max((v for s in series.values() for v in s.values()), default=1) * 1.12)
        if series:
            axes.legend(frameon=False, loc="upper right", borderaxespad=0.2, fontsize=8)
    return drawing.svg


def _long(label: str) -> float:
    """About how long a label is, as a share of the plot: text stays text, so nobody measures it before the browser."""
    return sum(0.0158 if c.isupper() or c.isdigit() else 0.0128 for c in label)


class _rows:
    """A canvas whose rows have names at the left, the first at the top; higher for more rows."""

    def __init__(self, name: str, labels: Sequence[str], x: str, room: float = 0.0) -> None:
        self.labels = [plain(label if len(label) <= 36 else label[:35] + "…") for label in labels]
        high = 0.62 + room + 0.27 * max(len(labels), 3)
        left = min(0.5, 0.03 + max((_long(label) for label in self.labels), default=0.05))
        frame = (left, 0.5 / high, 0.985 - left, (high - 0.56 - room) / high)
        self.made = canvas(name, x, "", size=(5.0, high), frame=frame, numbers="x")

    def __enter__(self) -> Canvas:
        self.drawing = self.made.__enter__()
        axes: Axes = self.drawing.axes
        axes.set_yticks(range(len(self.labels)), self.labels)
        axes.tick_params(axis="y", labelcolor=INK, labelsize=8.5)
        axes.set_ylim(len(self.labels) - 0.4, -0.6)
        return self.drawing

    def __exit__(self, *error: object) -> None:
        self.made.__exit__(*error)  # type: ignore[arg-type]
