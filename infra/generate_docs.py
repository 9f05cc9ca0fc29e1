"""Write the pages of docs/ that are drawn from the code: `make docs`. A test checks that they are current."""

from __future__ import annotations

import inspect
import json
import re
import typing
from datetime import date
from pathlib import Path

from pydantic import IPvAnyNetwork
from pydantic_core import PydanticUndefined

from pipeline import schemas
from pipeline.config import ProjectConfig
from pipeline.errors import TreError
from pipeline.model import REASONS, TRANSITIONS, Status
from pipeline.sections import Section

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


def project_file() -> str:
    """Return docs/project-file.md: every key that a project file may have, as `pipeline/sections.py` declares it."""
    lines = [
        NOTE,
        "# The project file\n",
        "One TOML file a project. `schema_version = 1` stands first. A key that is not here is refused, with its line.",
        "Paths are relative to the file; `${NAME}` is taken from the environment, in `[zones]` alone. `[project]`,",
        "`[zones]`, `[eligibility]` and `[deidentify]` must be there; what else is left out is not done, or goes by",
        "what stands here.",
        "How to begin: [runbook](runbook.md#a-new-project).\n",
    ]
    for name, field in ProjectConfig.model_fields.items():
        for kind, form in _sections(field.annotation):
            lines += _keys(form.format(field.alias or name), kind)
    return "\n".join(lines)


def _keys(header: str, kind: type[Section]) -> list[str]:
    """Return the table of one section's keys, and those of the sections in it."""
    source, below = inspect.getsource(kind), []
    lines = [f"## {header}\n", *([f"{inspect.cleandoc(kind.__doc__)}\n"] if kind.__doc__ else []),
             "| key | is | unless given | means |", "| --- | --- | --- | --- |"]
    for name, field in kind.model_fields.items():
        inner = _sections(field.annotation)
        if inner:
            path = header.strip("[]")
            below += [one for of, form in inner for one in _keys(form.format(f"{path}.{name}"), of)]
            continue
        said = re.search(rf"^    {name}: .*?  # (.*)$", source, re.M)
        default = "**required**" if field.default is PydanticUndefined else _toml(field.default)
        lines.append(f"| `{name}` | {_word(field.annotation)} | {default} | {said[1] if said else ''} |")
    return [*(lines if lines[-1][1:4] != " --" else []), "", *below]


def _sections(annotation: object) -> list[tuple[type[Section], str]]:
    """Return the sections that a key's type holds, each with how its header is written."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [(annotation, "[{}]")]
    forms = {tuple: "[[{}]]", dict: "[{}.NAME]"}
    form = forms.get(typing.cast(type, typing.get_origin(annotation)), "[{}]")
    return [(kind, form) for inner in typing.get_args(annotation) for kind, _ in _sections(inner)]


def _word(annotation: object) -> str:
    words = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path", date: "date",
             IPvAnyNetwork: "network"}
    if annotation in words:
        return words[typing.cast(type, annotation)]
    inner = [one for one in typing.get_args(annotation) if one not in (type(None), Ellipsis)]
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(f"`{_toml(one)}`" for one in inner)
    said = [_word(one) for one in inner]
    if typing.get_origin(annotation) is dict:
        return f"table of {said[1]}"
    return f"list of {said[0]}" if typing.get_origin(annotation) is tuple else " or ".join(said)


def _toml(value: object) -> str:
    text = json.dumps(value, default=lambda path: str(path))
    return {"{}": "none", "[]": "none", '""': "none", "null": "none"}.get(text, text)


def _all(kind: type[TreError]) -> list[type[TreError]]:
    children = [child for child in kind.__subclasses__() if child.__module__ == TreError.__module__]
    return [kind, *(below for child in children for below in _all(child))]


PAGES = {"states.md": states, "errors.md": errors, "dictionary.md": dictionary,
         "project-file.md": project_file}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
        print(f"docs/{name}")
