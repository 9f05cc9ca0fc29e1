"""`tre`: assembles the sub-apps. Nothing heavy is imported here; each command imports what it needs when it runs.

An error of the tree prints its message and ends with its exit code. Any other exception prints its type and where it
was, never its text, and ends with 1; TRE_DEBUG=1 prints the whole traceback.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from pipeline import observe
from pipeline.cli import (
    approve,
    audit,
    audit_log,
    candidate,
    doctor,
    find,
    flow,
    ledger,
    listen,
    pacs,
    pixels,
    quarantine,
    recall,
    recipe,
    release,
    retrieve,
    status,
    suite,
    synthetic,
    terms,
)
from pipeline.errors import TreError

app = typer.Typer(
    name="tre",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From PACS to a trusted research environment: linked, pseudonymised imaging datasets that can prove what was "
    "done.\n\nStart with [bold]tre doctor[/bold]. The whole way, without Airflow, is [bold]tre run[/bold].",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"tre-ingest {version('tre-ingest')}")
        raise typer.Exit


@app.callback()
def _root(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print each step's events: ids and counts.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    observe.show_progress(True)
    if verbose:
        observe.verbose()


flow.register(app)
app.add_typer(pacs.app, name="pacs")
app.command("retrieve", epilog=retrieve.EXAMPLES)(retrieve.retrieve)
app.command("status", epilog=status.EXAMPLES)(status.status)
app.command("ledger", epilog=ledger.EXAMPLES)(ledger.ledger)
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(pixels.app, name="pixels")
app.command("find", epilog=find.EXAMPLES)(find.find)
app.add_typer(find.cohort, name="cohort")
app.add_typer(audit_log.app, name="audit-log")
app.add_typer(candidate.app, name="candidate")
app.command("approve", epilog=approve.EXAMPLES)(approve.approve)
app.command("recall", epilog=recall.EXAMPLES)(recall.recall)
app.add_typer(recipe.app, name="recipe")
app.add_typer(terms.app, name="terms")
app.add_typer(suite.app, name="suite")
app.add_typer(release.app, name="release")
app.add_typer(audit.app, name="audit")
app.command("synthetic", epilog=synthetic.EXAMPLES)(synthetic.synthetic)
app.command("listen", epilog=listen.EXAMPLES)(listen.listen)
app.command("doctor", epilog=doctor.EXAMPLES)(doctor.doctor)


def main() -> None:
    """Entry point of `tre`. Ends the process with the exit code of what happened (errors.py)."""
    observe.quiet()
    debug = os.environ.get("TRE_DEBUG") == "1"
    if debug:
        _say("warning: TRE_DEBUG=1 prints whole tracebacks, and those may show values of patients.")
    try:
        typer.main.get_command(app)(prog_name="tre")
    except TreError as error:
        if debug:
            raise
        _say(f"tre: {error.code}: {error.message}")
        if error.hint:
            _say(f"  {error.hint}")
        sys.exit(error.exit_code)
    except Exception as error:  # its text may quote a value, so it goes no further
        if debug:
            raise
        _say(f"tre: stopped by {observe.describe(error)}")
        _say("  That is a fault of the program. Nothing was released. TRE_DEBUG=1 shows the whole of it.")
        sys.exit(1)


def _say(line: str) -> None:
    print(line, file=sys.stderr)
