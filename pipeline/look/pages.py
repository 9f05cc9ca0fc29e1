"""Pages from templates. Everything that is put in is escaped; nothing is loaded from outside; no script."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path


def render(folder: Path, template: str, filters: Mapping[str, Callable[..., object]], **values: object) -> bytes:
    """Return a template of `folder` filled, as UTF-8; a name that is not given is an error.

    `base.html.j2` and `style.css` stand beside this file and are found from every folder. Filters `n` (1,234) and `svg`
    (a drawing of `look.canvas`, put in as it is) are always there.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        newline_sequence="\n",
        autoescape=select_autoescape(enabled_extensions=("html.j2",), default=False),
    )
    environment.filters |= {"n": lambda n: f"{n:,}", "svg": Markup, **filters}
    return environment.get_template(template).render(**values).encode()
