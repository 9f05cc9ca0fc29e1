"""Pages of a release, from the templates beside this file. Everything that is put in is escaped."""

from __future__ import annotations

from pathlib import Path


def render(template: str, **values: object) -> bytes:
    """Return the filled template as UTF-8; a name that is not given is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup

    from pipeline.publish import words

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        newline_sequence="\n",
        autoescape=select_autoescape(enabled_extensions=("html.j2",), default=False),
    )
    environment.filters |= {"size": words.size, "reason": words.reason, "n": lambda n: f"{n:,}", "svg": Markup}
    return environment.get_template(template).render(**values).encode()
