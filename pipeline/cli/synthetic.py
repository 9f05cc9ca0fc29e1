"""`tre synthetic`: something to try the product on. Nobody in it exists."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.show import examples
from pipeline.errors import UsageError

EXAMPLES = examples(
    "tre synthetic /tmp/try", "TRE_KEY_DIR=/tmp/try/keys tre run /tmp/try/project.toml --approve-as officer"
)


def synthetic(
    directory: Annotated[Path, typer.Argument(help="A new or empty directory.", show_default=False)],
    women: Annotated[int, typer.Option(help="How many women were screened.", min=1, max=10_000)] = 12,
) -> None:
    """Make a demo project: a landing full of files, crosswalk, permitted people, episodes, project file and key."""
    from pipeline.deidentify.keys import create_key
    from pipeline.synthetic.demo import write_demo

    if directory.exists() and any(directory.iterdir()):
        raise UsageError("The directory is not empty.", hint="Give a new one.")
    directory.mkdir(parents=True, exist_ok=True)
    directory = directory.resolve()
    write_demo(directory, women=women)
    create_key(directory / "keys", "demo-screening")
    print(f"{women} synthetic women, pydicom's public files and some hostile ones in {directory / 'landing'}")
    print(f"Next: TRE_KEY_DIR={shlex.quote(str(directory / 'keys'))} tre run "
          f"{shlex.quote(str(directory / 'project.toml'))} --approve-as officer")
