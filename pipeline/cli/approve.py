"""`tre approve`: an officer signs what a project runs: recipes, concept rules, suites, the project file."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipeline.cli import project
from pipeline.cli.show import examples, table
from pipeline.errors import FilesNotApproved, OfficerKeyRefused, UsageError

if TYPE_CHECKING:
    from pipeline.config import ProjectConfig
    from pipeline.govern.approved import Standing

EXAMPLES = examples(
    "tre approve --new-key A.OFFICER              once: a key of your own, with a passphrase",
    "tre approve --check PROJECT.toml             what is approved, by whom, until when, and what is not",
    "tre approve PROJECT.toml --as A.OFFICER      sign everything that the project runs",
    "tre approve PROJECT.toml mammography.dicom --as A.OFFICER --days 90",
    "tre approve PROJECT.toml --candidate --as A.OFFICER      the newest candidate may be published; or --reject",
)
_DAYS = 365


def approve(
    project_file: Annotated[
        Path | None, typer.Argument(metavar="[PROJECT.toml]", help="The project file.", show_default=False)
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE]...", help="Only these of what it runs.", show_default=False),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Tell what is approved, and what not; sign nothing.")] = False,
    as_: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Who signs, as on the list of officers.")
    ] = None,
    new_key: Annotated[
        str | None, typer.Option("--new-key", metavar="NAME", help="Make a key for this officer; sign nothing.")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(help="The private key. Else $TRE_OFFICER_KEYS/NAME.key, or ~/.config/tre/officers/NAME.key."),
    ] = None,
    candidate: Annotated[
        bool, typer.Option("--candidate", help="Answer for the newest candidate: it may be published.")
    ] = False,
    reject: Annotated[bool, typer.Option("--reject", help="With --candidate: it may not, for good.")] = False,
    days: Annotated[int, typer.Option(min=1, max=731, help="How long the approval holds.")] = _DAYS,
    every_project: Annotated[
        bool, typer.Option("--every-project", help="For every project that names these files (not for project files).")
    ] = False,
    passphrase: Annotated[bool, typer.Option(help="With --new-key: ask for a passphrase.")] = True,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before signing.")] = False,
    work: project.Work = None,
) -> None:
    """Sign what a project runs, so that it may run: exactly these bytes, in this project, until a day.

    Read them first: tre recipe review --project PROJECT.toml shows the recipes in words. With --candidate, sign that
    exactly this candidate may be published; its page says what is in it. --check ends with 53 where something has no
    approval.
    """
    if new_key:
        _new_key(new_key, key, ask=passphrase)
        return
    if project_file is None:
        raise UsageError("Give a project file, or --new-key NAME.", hint="tre approve --help shows examples.")
    config = project.load(project_file, work=work)
    if check:
        _check(config)
        return
    if not as_:
        raise UsageError("Give --as NAME: who signs.", hint="To look alone: tre approve --check PROJECT.toml.")
    if candidate or reject:
        if files or every_project or not candidate:
            raise UsageError("--candidate takes --reject and --yes beside --as, and no file.")
        _answer(config, as_, key, "reject" if reject else "approve", yes=yes)
        return
    _sign(config, as_, key, files or [], _today() + timedelta(days), every_project=every_project, yes=yes)


def _new_key(name: str, path: Path | None, *, ask: bool) -> None:
    import base64

    from pipeline.govern import signatures

    where = path or signatures.key_path(name)
    public = signatures.new_key(where, _new_passphrase() if ask else "")
    print(f"Your private key: {where}. It is yours alone; it goes into no checkout, mail or backup that others read.")
    print(f"Its fingerprint:  {signatures.fingerprint(public)}. Write it down: pages show it beside your name.")
    print("\nGive this to the administrator who keeps the list of officers, in person, and name your projects:\n")
    print(f'[[officer]]\nname = "{name}"\nkey = "{base64.b64encode(public).decode()}"\nprojects = ["…"]')


def _new_passphrase() -> str:
    import getpass

    if not sys.stdin.isatty():
        raise OfficerKeyRefused("A passphrase is asked on a terminal, and there is none.", hint="Or --no-passphrase.")
    first = getpass.getpass("Passphrase for the new key: ")
    if not first or first != getpass.getpass("Again: "):
        raise OfficerKeyRefused("The passphrase was empty, or not the same twice.", hint="Start again.")
    return first


def _passphrase() -> str:
    import getpass

    if not sys.stdin.isatty():
        raise OfficerKeyRefused("This key needs its passphrase, which is asked on a terminal.")
    return getpass.getpass("Passphrase: ")


def _check(config: ProjectConfig) -> None:
    from pipeline.govern.approved import standing

    found = standing(config, _today())
    rows = []
    for v in sorted(found.verdicts, key=lambda v: v.approved):
        by = ", ".join(f"{e.approver} {e.date} until {e.expires}" for e in v.by)
        state = "not asked" if found.officers is None else "approved" if v.approved else "NOT APPROVED"
        rows.append((v.run.kind, v.run.name, v.run.sha256[:12], state, by if v.approved else v.reason()))
    table(f"What {config.name} runs", ("kind", "file", "SHA-256", "", "by whom, until when; or why not"), rows)
    _officers(config, found)
    if found.officers and not found.lacking:
        print(f"All of it may run until {min(v.until for v in found.verdicts)}.")
    if found.lacking:
        raise FilesNotApproved(f"{len(found.lacking)} of {len(rows)} files lack approval: {config.name} does not run.",
                               hint="An officer reads them and signs: tre approve PROJECT.toml --as NAME.")


def _officers(config: ProjectConfig, found: Standing) -> None:
    if found.officers is None:
        print("A demo project, on a machine without a list of officers: nobody's approval is asked for.")
        return
    for officer in found.officers.officer:
        if officer.may(config.name):
            print(f"{officer.name}, key {officer.fingerprint}")
    needed = found.officers.needed(config)
    print(f"Each file needs {needed} {'officer' if needed == 1 else 'officers'}. "
          f"The list of officers: {found.officers.sha256[:12]}.")
    if found.officers.changeable:
        print("Warning: this account may change the list of officers. Give the file to another account.")


def _sign(config: ProjectConfig, approver: str, key: Path | None, names: list[str], expires: date, *,
          every_project: bool, yes: bool) -> None:
    from pipeline import steps
    from pipeline.govern import signatures
    from pipeline.govern.approved import chosen

    meant = chosen(config, names)
    where = f"every project that names them; {config.path.name} for {config.name}" if every_project else config.name
    table(f"To be signed by {approver}, until {expires}, for {where}", ("kind", "file", "SHA-256"),
          [(run.kind, run.name, run.sha256[:12]) for run in meant])
    if not yes and not (sys.stdin.isatty() and typer.confirm("Have you read them, and may they run?")):
        raise UsageError("Nothing was signed.", hint="Answer on a terminal, or give --yes.")
    private = signatures.load_key(key or signatures.key_path(approver), _passphrase)
    done = steps.approve_files(config, approver, private, expires, meant, every_project=every_project)
    print(f"{done['files']} files approved: {done['approvals']}. The audit log has an entry of it.")


def _answer(config: ProjectConfig, approver: str, key: Path | None, decision: Literal["approve", "reject"], *,
            yes: bool) -> None:
    from pipeline import steps
    from pipeline.govern import signatures

    if config.project.demo:
        raise UsageError("A demo's candidates need no key.", hint="In Airflow, or tre publish --approve-as NAME.")
    newest = steps.newest_candidate(config)
    summary = steps.candidate_summary(config, newest["candidate"])
    print("\n".join(summary["lines"]))
    print(f"\nRead first, in full: {summary['page']}\nDigest: {summary['digest']}")
    asked = "Have you read it, and may it be published?" if decision == "approve" else "Reject it for good?"
    if not yes and not (sys.stdin.isatty() and typer.confirm(asked)):
        raise UsageError("Nothing was signed.", hint="Answer on a terminal, or give --yes.")
    private = signatures.load_key(key or signatures.key_path(approver), _passphrase)
    done = steps.sign_candidate(config, newest["candidate"], summary["digest"], approver, decision, private)
    print({"approve": f"Approved: {done['candidate']} may be published.", "reject": f"Rejected: {done['candidate']}.",
           None: f"Signed by {done['signed']} of {done['needed']} officers: {done['candidate']} waits for the others."}
          [done["decision"]])


def _today() -> date:
    return datetime.now(UTC).date()
