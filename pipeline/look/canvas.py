"""Plots as inline SVG whose bytes depend on the numbers alone. No clock, no user's matplotlibrc, no outside address."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, GRID, BAND = "#22303c", "#5d6b78", "#e3e8ec", "#f7e6c4"
COLOURS = ("#1f5f8b", "#d08a2e", "#6a7b53")
SIZE, FRAME = (5.0, 2.9), (0.115, 0.19, 0.87, 0.745)


class Canvas:
    """An Axes to draw on; `svg` is set when the drawing is done."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self.svg = ""


@contextmanager
def canvas(
    name: str,
    x: str,
    y: str,
    *,
    size: tuple[float, float] = SIZE,
    frame: tuple[float, float, float, float] = FRAME,
    numbers: Literal["x", "y", "xy"] = "y",
) -> Iterator[Canvas]:
    """Yield a canvas of `size` inches, its axes in `frame` (left, bottom, width, height as shares of it).

    `numbers` names the axes whose ticks are to be round numbers with a comma at thousands: "y", "x" or "xy"; the grid
    goes with them.
    """
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
                "ytick.color": MUTED if "y" in numbers else INK,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.spines.left": False,
                "ytick.major.size": 0,
                "xtick.major.size": 0,
                "axes.axisbelow": True,
                "axes.labelsize": 9,
            }
        )
        figure = Figure(figsize=size)
        axes = figure.add_axes(frame)
        axes.grid(axis="both" if numbers == "xy" else numbers, color=GRID, linewidth=0.8)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        drawing = Canvas(axes)
        yield drawing
        for letter in numbers:
            axis, end = (axes.yaxis, axes.get_ylim()[1]) if letter == "y" else (axes.xaxis, axes.get_xlim()[1])
            axis.set_major_locator(mpl.ticker.MaxNLocator(5, integer=end > 5))
            axis.set_major_formatter(mpl.ticker.FuncFormatter(lambda v, _: f"{v:,.0f}" if v == int(v) else f"{v:g}"))
        out = io.StringIO()
        FigureCanvasSVG(figure).print_svg(  # type: ignore[no-untyped-call]
            out, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
        drawing.svg = _inline(out.getvalue())


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
