"""`tre pixels`: what came of looking for text in pixels. Devices, counts and coordinates."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli import project
from pipeline.cli.show import examples, table

app = typer.Typer(no_args_is_help=True, help="What was read in the pixels of images, by device.")


@app.command("devices", epilog=examples("tre pixels devices PROJECT.toml", "tre pixels devices PROJECT.toml --draft"))
def devices(
    project_file: project.ProjectFile,
    draft: Annotated[bool, typer.Option("--draft", help="Print entries for the approved list, to be looked over.")]
    = False,
    work: project.Work = None,
) -> None:
    """Tell for each device how many of its images were read for text, and in how many text was found.

    With --draft: the devices of which enough were read and none held text, as entries of the list that
    [deidentify.pixels] devices names. Somebody looks at images of each before it is approved.
    """
    from pipeline.deidentify.devices import LEAST, entry
    from pipeline.ledger import looks
    from pipeline.storage import open_store

    config = project.load(project_file, work=work)
    found = looks.devices(config, open_store(config.zones.work, "work"))
    if draft:
        for one in found:
            if one.read >= LEAST and not one.with_text and one.manufacturer and one.model and one.software:
                print(entry(one.manufacturer, one.model, one.software, one.read))
        return
    rows = [(one.manufacturer, one.model, one.software, one.read, one.with_text) for one in found]
    table(f"Pixels read, {config.name}", ("manufacturer", "model", "software", "images read", "with text"), rows,
          right=("images read", "with text"))
    print("Text was looked for in the images that need it: docs/pixels.md.")
