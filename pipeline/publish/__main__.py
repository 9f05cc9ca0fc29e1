"""`python -m pipeline.publish PROJECT CANDIDATE --candidate URL --release URL`: publish in a process of its own.

PROJECT is the project's name, or its project file, which then gives what is not given. The approval is read from the
candidate zone. One line of JSON goes to standard output; the exit code is the error's own. `process.run` starts this
with an environment that holds neither the project's key nor landing's credentials.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

from pipeline import config, layout, observe
from pipeline.errors import ApprovalRefused, NotFound, TreError
from pipeline.publish.files import read_json
from pipeline.publish.release import Published, publish
from pipeline.storage import open_store

_NONE = "file:///nonexistent"  # zones that publishing never opens


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipeline.publish")
    parser.add_argument("project")
    parser.add_argument("candidate_id")
    parser.add_argument("--candidate", help="URL of the candidate zone")
    parser.add_argument("--release", help="URL of the release zone")
    parser.add_argument("--run-id", help="the run that publishes, for run.json")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--progress", action="store_true")
    given = parser.parse_args(argv)
    observe.quiet()
    observe.show_progress(given.progress)
    try:
        answer = dataclasses.asdict(_publish(given))
        code = 0
    except TreError as error:
        answer, code = {"error": error.code, "message": error.message, "hint": error.hint}, error.exit_code
    except Exception as error:  # noqa: BLE001 - whatever it is, its text may quote a value and must not leave
        answer, code = {"error": TreError.code, "message": observe.describe(error), "hint": ""}, TreError.exit_code
    sys.stdout.write(json.dumps(answer) + "\n")
    return code


def _publish(given: argparse.Namespace) -> Published:
    project, candidate_url, release_url = given.project, given.candidate, given.release
    if project.endswith(".toml"):
        found = config.load(project, landing=_NONE, work=_NONE, candidate=candidate_url, release=release_url)
        project, candidate_url, release_url = found.name, found.zones.candidate, found.zones.release
    candidate = open_store(candidate_url, "candidate", create=False)
    try:
        _, approval = read_json(candidate, layout.approval(project, given.candidate_id), "The approval")
    except NotFound:
        raise ApprovalRefused("Nobody has approved this candidate.", hint="Silence rejects.") from None
    return publish(
        candidate,
        open_store(release_url, "release"),
        project,
        given.candidate_id,
        approval=approval,
        run_id=given.run_id,
        dry_run=given.dry_run,
    )


if __name__ == "__main__":
    sys.exit(main())
