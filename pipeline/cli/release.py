"""`tre release`: what a researcher or an auditor does with a published release. Needs nothing but the release."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli import assure
from pipeline.cli.show import examples, facts, size

app = typer.Typer(no_args_is_help=True, help="Check and open a published release.")
Url = Annotated[
    str, typer.Argument(help="URL of a release: file:///… or s3://bucket/…/releases/0001-…", show_default=False)
]


@app.command(
    "verify",
    epilog=examples(
        "tre release verify file:///srv/tre/release/screening/releases/0001-5d2c8f0a91be",
        "tre release verify s3://release/screening/releases/0001-5d2c8f0a91be",
    ),
)
def verify(url: Url) -> None:
    """Compute the SHA-256 of all that the manifest lists, and compare. Needs the release and nothing else.

    Ends with 60 where anything is missing or changed; a recalled image is told from a missing one.
    """
    from pipeline.publish import verify as room

    found = room.verify(url)
    facts({
        "release": found.release + (" (current)" if found.current else " (superseded)"),
        "manifest SHA-256": found.manifest_sha256,
        "files right": found.files,
        "images right": found.images,
        "bytes of both": size(found.bytes),
        "images recalled": found.recalled,
        "files in no manifest": len(found.extra),
    })
    print("The release is what its manifest says.")


@app.command("open", epilog=examples("tre release open file:///srv/tre/release/screening/releases/0001-5d2c8f0a91be"))
def open_(url: Url) -> None:
    """Print the lines that load a release in DuckDB and in pandas."""
    from pipeline.publish.open import lines

    print(lines(url))


app.command("assure", epilog=assure.EXAMPLES)(assure.assure)
