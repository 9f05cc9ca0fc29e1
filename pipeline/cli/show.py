"""How `tre` prints: tables, totals, examples below a command's help. Rich is imported on use."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence


def examples(*lines: str) -> str:
    """Return lines of shell as the closing part of a command's help."""
    return "[bold]Examples[/bold]\n\n" + "\n\n".join(line.replace("[", "\\[") for line in lines)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Print a table; columns named in `right` stand to the right. Off a terminal no line is wrapped or coloured."""
    from rich.console import Console
    from rich.table import Table

    console = Console() if sys.stdout.isatty() else Console(width=200)
    drawn = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for name in columns:
        drawn.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*("" if cell is None else str(cell) for cell in row))
    console.print(drawn)


def totals(title: str, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Print {status: {reason: n}} as a table that ends with its sum."""
    rows: list[tuple[object, ...]] = [
        (status, reason, f"{n:,}")
        for status, reasons in sorted(counts.items())
        for reason, n in sorted(reasons.items())
    ]
    rows.append(("[bold]all[/bold]", "", f"[bold]{sum(sum(r.values()) for r in counts.values()):,}[/bold]"))
    table(title, ("status", "reason", "objects"), rows, right=("objects",))


def facts(rows: Mapping[str, object]) -> None:
    """Print name and value pairs, one a line."""
    width = max(map(len, rows), default=0)
    for name, value in rows.items():
        print(f"{name:<{width}}  {value:,}" if type(value) is int else f"{name:<{width}}  {value}")


def size(n: int) -> str:
    """Return a number of bytes as a person reads it."""
    amount = float(n)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"
