"""`tre audit`: questions asked of a published release, and before that, whether a recipe leaves what they need."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from pipeline.cli.show import examples, facts, table
from pipeline.errors import AuditNotServed, UsageError, VerifyFailed

if TYPE_CHECKING:
    from pipeline.audit.base import Audit
    from pipeline.audit.contract import Verdict


class _Audits(TyperGroup):
    """`tre audit NAME RELEASE` is `tre audit run NAME RELEASE`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["run", *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(cls=_Audits, no_args_is_help=True, subcommand_metavar="NAME RELEASE | COMMAND [ARGS]...",
                  help="Ask a release what an audit asks; see before that whether a recipe leaves what it needs.",
                  epilog=examples("tre audit list", "tre audit dose-survey file:///srv/tre/release/screening",
                                  "tre audit check dose-survey --project project.toml"))
Name = Annotated[str, typer.Argument(help="An audit; see `tre audit list`.", show_default=False)]
OutcomeFile = Annotated[Path | None, typer.Option("--outcome", metavar="FILE.toml", show_default=False,
                                                  help="Where a clinical table says how an episode ended.")]


@app.command("list", epilog=examples("tre audit list"))
def list_() -> None:
    """Say which audits there are, and what each asks."""
    from pipeline.audit.registry import AUDITS

    table("Audits", ("name", "question", "reads"),
          [(a.name, a.question, ", ".join(dict.fromkeys(
              r.table if r.required else f"{r.table} (where it is)" for r in a.reads))) for a in AUDITS.values()])


@app.command("run", hidden=True, epilog=examples("tre audit dose-survey file:///srv/tre/release/screening"))
def run(
    name: Name,
    release: Annotated[str, typer.Argument(help="URL or path of a release, or of a project: its current release.",
                                           show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Where to write. Default: a folder here.",
                                             show_default=False)] = None,
    minimum: Annotated[int | None, typer.Option("--minimum", min=2, show_default=False,
                                                help="Keep back groups of fewer. Default: the release's.")] = None,
    disclosure: Annotated[str, typer.Option("--disclosure", metavar="safe|internal",
                                            help="internal: plots show individuals.")] = "safe",
    outcome: OutcomeFile = None,
) -> None:
    """Write the audit's page and its CSVs, from the tables of a release."""
    from pipeline.audit.base import MINIMUM, Outcome
    from pipeline.audit.registry import named
    from pipeline.audit.run import OUTCOME, read_outcome
    from pipeline.audit.run import run as answer

    audit = named(name)
    if disclosure not in ("safe", "internal"):
        raise UsageError("--disclosure is safe or internal.")
    with ExitStack() as stack:
        store, manifest = _manifest(release)
        said = manifest.get("audit_defaults") or {}
        least = int(said.get("minimum_people", MINIMUM))
        declared = (Outcome(**said["outcome"]) if said.get("outcome") and not outcome
                    else read_outcome(outcome or OUTCOME))
        if minimum is not None and minimum < least:
            raise UsageError(f"This release keeps back groups of fewer than {least} people.", hint="Ask for no fewer.")
        wanted = {reads.table for reads in audit.reads} | {declared.table}
        tables = dict(_tables(stack, store, manifest, wanted))
        about = {"title": manifest.get("title", ""), "project": manifest["project"], "what": "release",
                 "id": manifest["release"], "demo": bool(manifest.get("demo"))}
        files, report = answer(audit, tables, about, minimum=minimum or least,
                               disclosure="internal" if disclosure == "internal" else "safe", outcome=declared)
    folder = out or Path(f"{manifest['release']}-{audit.name}")
    folder.mkdir(parents=True, exist_ok=True)
    for file, data in {**files, **report.internal}.items():
        (folder / file).write_bytes(data)
    facts({"page": folder / "index.html", "tables": len(files) - 1, "groups kept back below": minimum or least,
           **{f"left out: {what}": n or "few" for what, n in report.left_out}, **dict(report.internal_counts)})
    for file in report.internal:
        print(f"TRE-internal, never to leave the environment: {folder / file}")


def _manifest(release: str) -> tuple[Any, dict[str, Any]]:
    """Return the release zone and the manifest of a release given by URL or path."""
    from pipeline import layout
    from pipeline.publish.files import read_json
    from pipeline.publish.verify import locate

    url = release if release.startswith(("file://", "s3://")) else Path(release).resolve().as_uri()
    store, project, name = locate(url)
    return store, read_json(store, layout.release_manifest(project, name), "The release's manifest")[1]


def _tables(stack: ExitStack, store: Any, manifest: dict[str, Any], wanted: set[str]) -> Iterator[tuple[str, Path]]:
    """Yield the tables there are of those wanted, as local files of which each is what the manifest says."""
    from pipeline import layout
    from pipeline.publish.files import sha256_of

    for file in manifest["files"]:
        name = file["name"].removeprefix("tables/").removesuffix(".parquet")
        if file["name"] == f"tables/{name}.parquet" and name in wanted:
            path = stack.enter_context(store.fetch(layout.in_release(manifest["project"], manifest["release"],
                                                                     file["name"])))
            if sha256_of(path) != file["sha256"]:
                raise VerifyFailed(f"changed: {file['name']} of release {manifest['release']}.",
                                   hint="Do not use it; tell the data steward.")
            yield name, path


@app.command("check", epilog=examples("tre audit check dose-survey --project project.toml",
                                      "tre audit check compression deid_recipes/base.dicom my/mammography.dicom"))
def check(
    name: Name,
    recipes: Annotated[list[Path] | None, typer.Argument(metavar="[RECIPE]...", help="Recipes, read as one set.",
                                                         show_default=False)] = None,
    project: Annotated[Path | None, typer.Option("--project", metavar="PROJECT.toml", show_default=False,
                                                 help="Instead: the recipes and clinical tables of a project.")] = None,
    outcome: OutcomeFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdicts as JSON.")] = False,
) -> None:
    """Say, before any data moves, whether recipes leave what an audit needs, and the least rule that would serve.

    Ends with 17 where the audit is not served.
    """
    from pipeline.audit.contract import served
    from pipeline.audit.registry import named

    audit = named(name)
    if (project is None) == (not recipes):
        raise UsageError("Give either recipes or --project.")
    sets = list(_of_project(audit, project, outcome) if project else _of_recipes(audit, recipes or []))
    good = all(served(verdicts) for _, verdicts in sets)
    if as_json:
        print(json.dumps({"audit": audit.name, "served": good, "sets": [
            {"recipes": what, "served": served(verdicts), "needs": [_as_json(v) for v in verdicts]}
            for what, verdicts in sets]}, indent=1, sort_keys=True))
    else:
        for what, verdicts in sets:
            _print(audit, what, verdicts)
    if not good:
        lacking = dict.fromkeys(v.what for _, verdicts in sets for v in verdicts if v.required and not v.served)
        raise AuditNotServed(f"{audit.name} is not served: {', '.join(lacking)}.",
                             hint="Put the least rules into a recipe, or do without the audit.")
    if not as_json:
        print(f"{audit.name} is served.")


def _of_recipes(audit: Audit, recipes: list[Path]) -> Iterator[tuple[str, list[Verdict]]]:
    from pipeline.deidentify.linter import read
    from pipeline.deidentify.plan import compile_rules

    plan = compile_rules(read(recipes), keep_times=False)
    yield " + ".join(path.name for path in recipes), _verdicts(audit, plan)


def _of_project(audit: Audit, path: Path, outcome: Path | None) -> Iterator[tuple[str, list[Verdict]]]:
    from pipeline import config as project_file
    from pipeline.audit.base import Outcome
    from pipeline.audit.contract import Verdict, judge_clinical
    from pipeline.audit.run import OUTCOME, read_outcome
    from pipeline.deidentify.plan import load_plans, sop_class_uid

    config = project_file.load(path)
    plans = load_plans(config).plans
    eligible = {sop_class_uid(name, config) for name in config.eligibility.sop_classes}
    asked = {sop_class_uid(name, config) for name in audit.applies} or set(plans)
    here = {plans[uid].id: plans[uid] for uid in sorted(asked & eligible & plans.keys())}
    if not here:
        yield "the project file", [Verdict(
            "images", "What is asked is asked of them.", True, audit.applies, ("removed",), False,
            ("eligibility.sop_classes and [[deidentify.recipes]]: one of these SOP classes",))]
    for plan in here.values():
        yield " + ".join(plan.files), _verdicts(audit, plan)
    if audit.name == "outcomes":
        roles = {one.table: {name: column.role for name, column in one.columns.items()} for one in config.clinical}
        said = config.audit.outcome
        declared = Outcome(**said.model_dump()) if said and not outcome else read_outcome(outcome or OUTCOME)
        yield "clinical tables", judge_clinical(declared, roles)


def _verdicts(audit: Audit, plan: Any) -> list[Verdict]:
    """Ask the compiled plan what it does to each attribute."""
    from pipeline.audit.contract import judge
    from pipeline.deidentify.coverage import needs_reason
    from pipeline.deidentify.linter import attribute
    from pipeline.deidentify.plan import Op

    names: dict[int, Any] = {
        Op.KEEP: "kept", Op.DESCEND: "kept", Op.PIXELS: "kept", Op.UID: "remapped", Op.EMPTY: "emptied",
        Op.AGE: "banded", Op.DATE: "shifted", Op.DATETIME: "shifted", Op.TIME: "shifted", Op.PATIENT: "pseudonym",
        Op.DEVICE: "pseudonym", Op.OPERATOR: "pseudonym", Op.TERM: "kept"}

    def does(keyword: str) -> Any:
        act = plan.acts.get(attribute(keyword)[0])
        return "removed" if act is None else names[act.op]

    return judge(audit, does, needs_reason)


def _print(audit: Audit, what: str, verdicts: list[Verdict]) -> None:
    def word(v: Verdict) -> str:
        if v.served:
            return "yes, and more than it needs" if v.rules else "yes"
        return "NO" if v.required else "no, and it can do without"

    table(f"{audit.name}: {what}", ("needs", "attributes", "left", "served", "least rule that would serve", "for"),
          [(v.what, ", ".join(v.attributes), ", ".join(dict.fromkeys(v.does)), word(v),
            "; ".join(v.rules) + (" (with a reason: # weaker: …)" if v.weaker else ""), v.why) for v in verdicts])


def _as_json(v: Verdict) -> dict[str, Any]:
    return {"what": v.what, "why": v.why, "required": v.required, "attributes": v.attributes, "does": v.does,
            "served": v.served, "least_rules": v.rules, "weaker": v.weaker}
