"""What the benchmarks write: JSON lines in .bench/, and pages and plots in docs/benchmarks/.

A page names the machine by its cores, its memory and how busy it was, never by name. Plots are SVG whose bytes depend
on the numbers alone.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.look import canvas
from pipeline.look.canvas import GRID, INK, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "benchmarks"
COLOURS = (*canvas.COLOURS, "#9a5b6b", "#8a8f98")
BUSY = 0.25     # of the cores, before the bench: above this the page says that other work was going on


def machine() -> dict[str, Any]:
    """Return cores, GiB of memory, and the load average of the last minute over the cores; asked before measuring."""
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
    return {"cores": os.cpu_count(), "gib": round(memory), "busy": round(os.getloadavg()[0] / (os.cpu_count() or 1), 2)}


def of(line: Mapping[str, Any]) -> str:
    """Return a sentence about the machine of a line."""
    busy = line["busy"] > BUSY
    return (f"{line['cores']} cores, {line['gib']} GiB" +
            (", busy with other work: CPU and memory count, wall time does not." if busy else ", otherwise idle."))


def keep(name: str, lines: Iterable[Mapping[str, Any]]) -> None:
    """Append JSON lines to .bench/NAME.jsonl."""
    out = ROOT / ".bench" / f"{name}.jsonl"
    out.parent.mkdir(exist_ok=True)
    with out.open("a") as file:
        file.writelines(json.dumps(line, sort_keys=True) + "\n" for line in lines)


def kept(name: str) -> list[dict[str, Any]]:
    """Return the lines that were kept, oldest first."""
    path = ROOT / ".bench" / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def write(name: str, text: str) -> None:
    PAGES.mkdir(parents=True, exist_ok=True)
    (PAGES / name).write_text(text.rstrip() + "\n", encoding="utf-8")


# ---- plots -------------------------------------------------------------------------------------------------------
class _Drawing:
    def __init__(self, axes: Axes) -> None:
        self.axes, self.svg = axes, ""


@contextmanager
def drawing(name: str, x: str, y: str, height: float = 2.9) -> Iterator[_Drawing]:
    """Yield axes to draw on; `svg` is set when the block ends. Text stays text; ids are hashed with the name."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({
            "svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9, "axes.edgecolor": MUTED,
            "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK,
            "axes.spines.top": False, "axes.spines.right": False, "ytick.major.size": 0, "xtick.major.size": 0,
            "axes.axisbelow": True, "figure.facecolor": "white", "savefig.facecolor": "white"})
        figure = Figure(figsize=(7.0, height), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        made = _Drawing(axes)
        yield made
        out = io.StringIO()
        FigureCanvasSVG(figure).print_svg(  # type: ignore[no-untyped-call]
            out, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        svg = out.getvalue()
        svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg[svg.index("<svg"):], flags=re.S)
        made.svg = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", svg)


def grouped(name: str, groups: Sequence[str], series: Mapping[str, Sequence[float]], x: str, *,
            log: bool = False, form: str = "{:.2f}") -> str:
    """Return horizontal bars, a group to a row of them, the number at the end of each."""
    with drawing(name, x, "", height=0.45 + 0.24 * len(groups) * (len(series) + 0.8)) as made:
        axes, width = made.axes, 0.8 / len(series)
        for row, (label, values) in enumerate(series.items()):
            at = [i + width * (row - (len(series) - 1) / 2) for i in range(len(groups))]
            axes.barh(at, values, height=width * 0.9, color=COLOURS[row % len(COLOURS)], label=label)
            for place, value in zip(at, values, strict=True):
                axes.annotate(form.format(value), (value, place), xytext=(3, 0), textcoords="offset points",
                              va="center", fontsize=7.5, color=MUTED)
        axes.set_yticks(range(len(groups)), groups)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        if log:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
            axes.minorticks_off()
        axes.margins(x=0.12)
        _legend(axes, len(series))
    return made.svg


def stacked(name: str, groups: Sequence[str], parts: Mapping[str, Sequence[float]], x: str) -> str:
    """Return one horizontal bar a group, made of parts."""
    with drawing(name, x, "", height=1.1 + 0.4 * len(groups)) as made:
        axes, left = made.axes, [0.0] * len(groups)
        for row, (label, values) in enumerate(parts.items()):
            axes.barh(range(len(groups)), values, left=left, height=0.6, color=COLOURS[row % len(COLOURS)], label=label)
            left = [a + b for a, b in zip(left, values, strict=True)]
        axes.set_yticks(range(len(groups)), groups)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        _legend(axes, len(parts))
    return made.svg


def lines(name: str, at: Sequence[float], series: Mapping[str, Sequence[float]], x: str, y: str, *,
          most: tuple[float, str] | None = None, log: bool = True) -> str:
    """Return a line a series over `at`; `most`: a limit to draw, and what it is called."""
    with drawing(name, x, y, height=3.4) as made:
        axes = made.axes
        for row, (label, values) in enumerate(series.items()):
            axes.plot(at, values, "o-", color=COLOURS[row % len(COLOURS)], markersize=4, linewidth=1.4, label=label)
        if most:
            axes.axhline(most[0], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
            axes.annotate(most[1], (at[0], most[0]), xytext=(0, 3), textcoords="offset points", fontsize=7.5,
                          color=MUTED)
        if log:
            axes.set_xscale("log")
            axes.set_xticks(list(at), [f"{value:,.0f}" for value in at])
            axes.minorticks_off()
        axes.set_ylim(bottom=0)
        _legend(axes, len(series))
    return made.svg


def _legend(axes: Axes, entries: int) -> None:
    if entries > 1:
        axes.legend(frameon=False, ncols=min(entries, 5), loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0,
                    handlelength=1, columnspacing=1.2)
