"""Progress, and a logger that cannot print values.

`event("stage.done", batch=id, rejected=3)` prints counts, booleans, reason codes and opaque ids; any other text
becomes `<redacted>`. Third-party warnings and log records that could carry element values (pydicom's, deid's, boto's) are cut to
their logger's name and a count.
"""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import TypeVar

from pipeline.layout import ID

T = TypeVar("T")
_SAFE = re.compile(rf"{ID.pattern}|\d{{4}}-[0-9a-f]{{12}}|[a-z][a-z_.]{{1,39}}|[0-9A-F]{{8}}")
_log = logging.getLogger("tre")


def event(name: str, /, **fields: object) -> None:
    """Log one event: a dotted name and safe fields."""
    _log.info("%s", " ".join([name, *(f"{key}={safe(value)}" for key, value in fields.items())]))


def safe(value: object) -> str:
    """Return the value as text where it cannot identify anybody, else `<redacted>`."""
    if value is None or isinstance(value, bool | int | float):
        return str(value)
    text = str(value.value) if isinstance(value, Enum) else value
    return text if isinstance(text, str) and _SAFE.fullmatch(text) else "<redacted>"


class _NoValues(logging.Filter):
    """Replaces the message of a library that quotes what it reads."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = f"{record.levelname.lower()} (text withheld: it may quote a value)", ()
        record.exc_info = record.exc_text = None
        return True


def quiet() -> None:
    """Keep libraries from printing values. Called once at each entry: CLI, DAG task, worker process."""
    for name in ("pydicom", "deid", "bot", "botocore", "boto3", "urllib3", "great_expectations"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.ERROR)
        if not any(isinstance(f, _NoValues) for f in logger.filters):
            logger.addFilter(_NoValues())
    warnings.simplefilter("ignore")
    if not _log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        _log.addHandler(handler)
        _log.setLevel(logging.WARNING)
        _log.propagate = False


def verbose() -> None:
    """Let events through."""
    _log.setLevel(logging.INFO)


_progress = False


def show_progress(on: bool) -> None:
    """Draw progress bars on a terminal (the CLI turns it on; tasks never do)."""
    global _progress
    _progress = on and sys.stderr.isatty()


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yield the items, with a progress bar where one is wanted."""
    if not _progress:
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield from bar.track(items, total=total, description=label)
