"""`python -m pipeline.publisher NAME CANDIDATE --candidate URL --release URL`: publish in a process of its own.

It stands beside the steps, above the rooms, because it takes two of them: `govern` says whether the approval holds for
exactly these bytes, `publish` publishes them. One line of JSON goes to standard output; the exit code is the error's
own. `publish.process.run` starts it with an environment that holds neither the project's key nor landing's credentials.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

from pipeline import observe
from pipeline.errors import PublishRefused, TreError
from pipeline.govern.approval import check
from pipeline.publish.candidate import digest
from pipeline.publish.release import Published, publish
from pipeline.storage import open_store


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipeline.publisher")
    parser.add_argument("project", help="name of the project")
    parser.add_argument("candidate_id")
    parser.add_argument("--digest", help="what candidate.json must be: whose signatures were judged")
    parser.add_argument("--candidate", required=True, help="URL of the candidate zone")
    parser.add_argument("--release", required=True, help="URL of the release zone")
    parser.add_argument("--audit-head", help="digest of the audit log's newest entry, for run.json")
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
    candidate = open_store(given.candidate, "candidate", create=False)
    sealed = digest(candidate, given.project, given.candidate_id)
    if given.digest not in (None, sealed):
        raise PublishRefused("The candidate changed while it was published.", hint="Build and approve a new candidate.")
    approval = check(candidate, given.project, given.candidate_id, sealed)
    release = open_store(given.release, "release")
    return publish(candidate, release, given.project, given.candidate_id, approval=approval, run_id=given.run_id,
                   audit_head=given.audit_head, dry_run=given.dry_run)


if __name__ == "__main__":
    sys.exit(main())
