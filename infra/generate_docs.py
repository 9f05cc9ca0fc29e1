"""Write the pages of docs/ that are drawn from the code: `make docs`. A test checks that they are current."""

from __future__ import annotations

from pathlib import Path

from pipeline import schemas
from pipeline.errors import TreError
from pipeline.model import REASONS, TRANSITIONS, Status

DOCS = Path(__file__).resolve().parent.parent / "docs"
NOTE = "<!-- Written by `make docs` from the code. Do not edit it here. -->\n"

MEANINGS = {
    Status.PENDING: "Understood so far, and not released yet.",
    Status.REJECTED: "Not admitted, or not eligible under the project file.",
    Status.DUPLICATE: "The same bytes were staged before.",
    Status.CONFLICT: "The same SOP Instance UID came with other bytes.",
    Status.QUARANTINED: "Admitted, but it could not be de-identified safely.",
    Status.WITHHELD: "Kept back: its person is not linked, its study is in doubt, or an expectation failed.",
    Status.PUBLISHED: "In the current release.",
    Status.SUPERSEDED: "In an earlier release, and not in the current one.",
    Status.RECALLED: "Taken back: it stays out for good.",
    Status.MISSING: "Expected from PACS, and never landed.",
}


def states() -> str:
    """Return docs/states.md: the diagram of TRANSITIONS and the table of REASONS."""
    lines = [
        NOTE,
        "# What can become of an object\n",
        "Every object that landed has exactly one status at any moment. The ledger tells it. Nothing is dropped in",
        "silence: what goes no further has a reason.\n",
        "```mermaid",
        "stateDiagram-v2",
    ]
    lines += [
        f"    {'[*]' if start is None else start} --> {end}"
        for start, ends in TRANSITIONS.items()
        for end in sorted(ends)
    ]
    lines += ["```\n", "| status | means | may become |", "| --- | --- | --- |"]
    for status in Status:
        after = ", ".join(sorted(TRANSITIONS[status])) or "nothing else"
        lines.append(f"| `{status}` | {MEANINGS[status]} | {after} |")
    lines += ["\n## Reasons\n", "| reason | status | means |", "| --- | --- | --- |"]
    lines += [f"| `{reason}` | {status} | {meaning} |" for reason, (status, meaning) in REASONS.items()]
    return "\n".join(lines) + "\n"


def errors() -> str:
    """Return docs/errors.md: what stops a command, and its exit code."""
    lines = [
        NOTE,
        "# What stops a command\n",
        "An error stops before anything moves, where it can. Its message names the file that you wrote, an opaque id,",
        "a tag or a count, and never a value of a patient. *Next* says what the scheduler does: `retry` tries the step",
        "again, `abort` waits for you, `quarantine` holds one object and goes on with the rest.\n",
        "| exit code | error | next | means |",
        "| --- | --- | --- | --- |",
        "| 0 | | | Done. |",
    ]
    kinds = sorted(_all(TreError), key=lambda kind: kind.exit_code)
    for kind in kinds:
        means = "Anything else: a fault of the program." if kind is TreError else (kind.__doc__ or "").split("\n\n")[0]
        lines.append(f"| {kind.exit_code} | `{kind.code}` | {kind.disposition} | {' '.join(means.split())} |")
    return "\n".join(lines) + "\n"


def dictionary() -> str:
    """Return docs/dictionary.md: the columns of every published table."""
    lines = [
        NOTE,
        "# Data dictionary\n",
        "The tables of every release. A release carries this page too, with its clinical tables, whose columns the",
        "project file declares. Units are in the names.\n",
    ]
    for table in schemas.PUBLISHED:
        lines += [f"## {table.name}\n", f"{table.meaning} Key: `{', '.join(table.key)}`.", ""]
        lines += [f"`{column}` refers to `{other}`." for column, other in table.references]
        lines += ["", "| column | type | unit | meaning | source |", "| --- | --- | --- | --- | --- |"]
        lines += [f"| `{c.name}` | {c.type} | {c.unit} | {c.meaning} | {c.source} |" for c in table.columns]
        lines.append("")
    return "\n".join(lines)


def _all(kind: type[TreError]) -> list[type[TreError]]:
    children = [child for child in kind.__subclasses__() if child.__module__ == TreError.__module__]
    return [kind, *(below for child in children for below in _all(child))]


PAGES = {"states.md": states, "errors.md": errors, "dictionary.md": dictionary}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
        print(f"docs/{name}")
