"""Progress, and a logger that cannot print values.

`event("stage.done", batch=id, rejected=3)` prints counts, booleans, reason codes and opaque ids; any other text
becomes `<redacted>`. What libraries say (log records, warnings, deid's own printer, an uncaught exception) may quote an
element value, so their text never reaches a handler: `quiet()` replaces it where records are made, whichever logger
they come from, and only the product's own and Airflow's pass.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar

from pipeline.errors import Disposition, TreError
from pipeline.layout import ID
from pipeline.model import Reason, Status

T = TypeVar("T")
_OPAQUE = re.compile(rf"{ID.pattern}|\d{{4}}-[0-9a-f]{{12}}|\([0-9A-F]{{4}},[0-9A-F]{{4}}\)")  # id, release, tag
_WORDS = frozenset(map(str, (*Reason, *Status, *Disposition)))
_log = logging.getLogger("tre")
_SPEAK = frozenset({"tre", "airflow"})  # roots of the loggers whose text is known to hold no value
_CHATTY = (
    "pydicom", "pynetdicom", "boto3", "botocore", "s3transfer", "urllib3", "great_expectations", "matplotlib", "PIL",
)


def event(name: str, /, **fields: object) -> None:
    """Log one event: a dotted name and safe fields."""
    _log.info("%s", " ".join([name, *(f"{key}={safe(value)}" for key, value in fields.items())]))


def safe(value: object) -> str:
    """Return the value as text where it cannot identify anybody, else `<redacted>`. A number is taken for a count."""
    if value is None or isinstance(value, bool | int | float):
        return str(value)
    if isinstance(value, str) and (value in _WORDS or _OPAQUE.fullmatch(value)):
        return str(value)
    return "<redacted>"


def describe(error: BaseException) -> str:
    """Say what went wrong without quoting anything: the product's own errors in full, of any other the type and the
    last line of the product that it passed."""
    if isinstance(error, TreError):
        return str(error)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/pipeline/" in f.filename]
    where = f" at pipeline/{frames[-1].filename.rpartition('/pipeline/')[2]}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where} (text withheld: it may quote a value)"


def quiet() -> None:
    """Keep libraries from printing values. Called once at each entry: CLI, DAG task, worker process. Safe to repeat."""
    os.environ["MESSAGELEVEL"] = "QUIET"  # deid prints by itself, past the logging module
    if "deid.logger" in sys.modules:
        sys.modules["deid.logger"].bot.level = 0
    if not getattr(logging.getLogRecordFactory(), "withholds", False):
        logging.setLogRecordFactory(_withholding(logging.getLogRecordFactory()))
    warnings.simplefilter("ignore")
    warnings.showwarning = _show_warning
    sys.excepthook = _show_exception
    threading.excepthook = lambda args: _show_exception(args.exc_type, args.exc_value, args.exc_traceback)
    sys.unraisablehook = lambda args: _show_exception(args.exc_type, args.exc_value, args.exc_traceback)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    if not _log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        _log.addHandler(handler)
        _log.setLevel(logging.WARNING)
        _log.propagate = False


def _withholding(make: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    """Wrap a record factory. A filter would not do: a logger's filters are not asked about its children's records."""

    def record(name: str, level: int, *args: Any, **kwargs: Any) -> logging.LogRecord:
        made = make(name, level, *args, **kwargs)
        if str(name).partition(".")[0] not in _SPEAK and not _debug():
            made.msg, made.args = f"{made.levelname.lower()} (text withheld: it may quote a value)", ()
            made.exc_info = made.exc_text = made.stack_info = None
        return made

    record.withholds = True  # type: ignore[attr-defined]
    return record


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    print(f"{category.__name__} (text withheld: it may quote a value)", file=sys.stderr)  # noqa: T201


def _show_exception(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if _debug() and error is not None:
        traceback.print_exception(kind, error, trace)
    else:
        print(describe(error) if error is not None else kind.__name__, file=sys.stderr)  # noqa: T201


def _debug() -> bool:
    """TRE_DEBUG=1: the operator asked for full text, and the CLI has warned that values may show."""
    return os.environ.get("TRE_DEBUG") == "1"


def verbose() -> None:
    """Let events through."""
    _log.setLevel(logging.INFO)


_progress = False


def show_progress(on: bool) -> None:
    """Draw progress bars on a terminal (the CLI turns it on; tasks never do)."""
    global _progress
    _progress = on and sys.stderr.isatty()


def progress_shown() -> bool:
    """Whether bars are drawn, so that a child process can draw them too."""
    return _progress


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
