"""`tre run`, `stage`, `build`, `publish`: the steps that Airflow runs, without it. All writes go through steps."""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import steps
from pipeline.cli import doctor, project
from pipeline.cli.show import examples, facts, size, totals
from pipeline.errors import ApprovalRefused
from pipeline.observe import track

if TYPE_CHECKING:
    from pipeline.config import ProjectConfig

ApproveAs = Annotated[
    str | None,
    typer.Option(
        "--approve-as",
        metavar="NAME",
        help="Approve as this officer. Only in a project marked demo = true; others need an officer's key.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("run", epilog=RUN)(run)
    app.command("stage", epilog=examples("tre stage PROJECT.toml --dry-run", "tre stage PROJECT.toml"))(stage)
    app.command("build", epilog=examples("tre build PROJECT.toml --dry-run", "tre build PROJECT.toml"))(build)
    app.command("publish", epilog=PUBLISH)(publish)


RUN = examples(
    "tre synthetic /tmp/try && export TRE_KEY_DIR=/tmp/try/keys",
    "tre run /tmp/try/project.toml --approve-as officer",
    "tre run PROJECT.toml        up to a candidate that waits for approval",
)
PUBLISH = examples(
    "tre publish PROJECT.toml --dry-run", "tre publish PROJECT.toml", "tre publish DEMO.toml --approve-as officer"
)


def run(
    project_file: project.ProjectFile,
    landing: project.Landing = None,
    work: project.Work = None,
    candidate: project.Candidate = None,
    release: project.Release = None,
    approve_as: ApproveAs = None,
) -> None:
    """Go the whole way: stage, de-identify, curate, validate, approve, publish. Start it again after any stop.

    Without --approve-as it ends with a candidate that waits for approval.
    """
    config = project.load(project_file, landing=landing, work=work, candidate=candidate, release=release)
    _may_approve(config, approve_as)
    doctor.ready(config)
    _stage(config)
    built = build_all(config)
    if approve_as is None:
        how = "in Airflow, or tre publish --approve-as NAME" if config.project.demo else \
            "tre approve PROJECT.toml --candidate --as NAME, by an officer"
        print(f"\nThe candidate waits for approval: {how}.")
    else:
        _approve(config, built, approve_as)
        _publish(config, built["candidate"])
    _close(config)


def stage(
    project_file: project.ProjectFile,
    landing: project.Landing = None,
    work: project.Work = None,
    dry_run: project.DryRun = False,
) -> None:
    """Freeze what has landed into a batch: list it once, read every byte, give each object a row."""
    _stage(project.load(project_file, landing=landing, work=work), dry_run=dry_run)


def build(
    project_file: project.ProjectFile,
    landing: project.Landing = None,
    work: project.Work = None,
    candidate: project.Candidate = None,
    dry_run: project.DryRun = False,
) -> None:
    """De-identify what has no part under today's plan, make the tables, validate: a candidate to be approved."""
    config = project.load(project_file, landing=landing, work=work, candidate=candidate)
    if not dry_run:
        build_all(config)
        return
    from pipeline.cli.project import reading
    from pipeline.stage.batches import read_shard

    store, pending, instances, amount = reading(config)[0], steps.pending_shards(config), 0, 0
    for one in pending:
        rows = read_shard(store, config.name, one["batch"], one["shard"])
        instances, amount = instances + rows.num_rows, amount + sum(rows["bytes"].to_pylist())
    facts({"shards to de-identify": len(pending), "instances in them": instances, "their size": size(amount)})


def publish(
    project_file: project.ProjectFile,
    work: project.Work = None,
    candidate: project.Candidate = None,
    release: project.Release = None,
    approve_as: ApproveAs = None,
    dry_run: project.DryRun = False,
) -> None:
    """Publish the newest candidate, if it is approved: exactly those bytes, or nothing."""
    config = project.load(project_file, work=work, candidate=candidate, release=release)
    _may_approve(config, approve_as)
    newest = steps.newest_candidate(config)
    if approve_as is not None and not dry_run:
        _approve(config, newest, approve_as)
    _publish(config, newest["candidate"], dry_run=dry_run)


def _may_approve(config: ProjectConfig, approve_as: str | None) -> None:
    """Before anything moves: an officer of the command line has no say over real data."""
    if approve_as is not None and not config.project.demo:
        raise ApprovalRefused(
            "--approve-as works only in a project marked demo = true.",
            hint="An officer signs: tre approve PROJECT.toml --candidate --as NAME.",
        )


def _stage(config: ProjectConfig, *, dry_run: bool = False) -> None:
    staged = _step("stage", lambda: steps.stage(config, dry_run=dry_run))
    said = {
        "batch": staged["batch"] or ("none: a dry run writes nothing" if dry_run else "none: nothing new has landed"),
        "instances to de-identify": staged["instances"],
        "their size": size(staged["bytes"]),
        "shards": staged["shards"],
        "still arriving": staged["arriving"],
    }
    facts({**{f"  {k}": v for k, v in said.items()}, **{f"  {k}": v for k, v in staged["counts"].items()}})
    if staged["arriving"]:
        print(f"  What changed in the last {config.stage.quiet_seconds} s waits for next time ([stage] quiet_seconds).")


def build_all(config: ProjectConfig) -> Mapping[str, Any]:
    """De-identify what is pending, put a candidate together and seal it. Return what `steps.validate` says."""
    pending = steps.pending_shards(config)
    begin = time.monotonic()
    for one in track(pending, "de-identify", total=len(pending)):
        steps.deidentify(config, one["batch"], one["shard"])
    print(f"de-identify  {len(pending)} shards, {time.monotonic() - begin:.1f} s")
    _step("clinical", lambda: steps.clinical(config))
    assembled = _step("assemble", lambda: steps.assemble(config))
    facts({f"  output table, line {line}": f"left out: {reason}" for line, reason in assembled["output_refused"]})
    _step("curate", lambda: steps.curate(config, assembled["candidate"]))
    validated = _step("validate", lambda: steps.validate(config, assembled["candidate"]))
    page = steps.candidate_page(config, validated["candidate"])["page"]
    facts({"  candidate": validated["candidate"], "  digest": validated["digest"], "  to be read": page})
    return validated


def _approve(config: ProjectConfig, built: Mapping[str, Any], officer: str) -> None:
    print()
    for line in steps.candidate_summary(config, built["candidate"])["lines"]:
        print(f"  {line}")
    print()
    steps.approve(config, built["candidate"], built["digest"], officer, getpass.getuser(), "approve")
    print(f"approved     by {officer}, a demo project's officer")


def _publish(config: ProjectConfig, candidate: str, *, dry_run: bool = False) -> None:
    found = _step("publish", lambda: steps.publish(config, candidate, dry_run=dry_run))
    facts({
        "  release": found["release"],
        "  images": found["images"],
        "  of those new": found["copied"],
        "  new bytes": size(found["copied_bytes"]),
        "  URL": f"{config.zones.release}/{config.name}/releases/{found['release']}",
    })


def _close(config: ProjectConfig) -> None:
    found = steps.ledger_summary(config)
    print()
    totals(f"Every object of {config.name} that landed", found["counts"])


def _step(name: str, do: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do one step and say how long it took."""
    begin = time.monotonic()
    found = do()
    print(f"{name:<12} {time.monotonic() - begin:.1f} s")
    return found
