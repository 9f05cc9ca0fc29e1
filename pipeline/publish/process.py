"""Publish in a process whose environment holds neither the project's key nor landing's credentials.

On one machine zones are a discipline, not a wall: the process has the same user. What it is not told it cannot read by
accident, in a library's own search for credentials, or in a dump of its environment.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pipeline
from pipeline import errors, observe
from pipeline.config import ProjectConfig
from pipeline.errors import EnvironmentUnfit, TreError

_PASSED = re.compile(
    r"PATH|HOME|LANG|LC_[A-Z]+|TZ|TMPDIR|SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|AWS_CA_BUNDLE"
    r"|(HTTPS?|NO)_PROXY|(https?|no)_proxy|MPLCONFIGDIR|TRE_CANDIDATE_[A-Z_]+|TRE_RELEASE_[A-Z_]+"
)


def environment(full: Mapping[str, str]) -> dict[str, str]:
    """Return what of an environment the publisher may see: an allow-list."""
    kept = {name: value for name, value in full.items() if _PASSED.fullmatch(name)}
    # No shared credentials file either: it may hold landing's. Credentials come by TRE_CANDIDATE_* and TRE_RELEASE_*.
    kept |= {
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_CONFIG_FILE": os.devnull,
        "PYTHONNOUSERSITE": "1",
        "PYTHONPATH": str(Path(pipeline.__file__).parent.parent),
        "PYTHONUNBUFFERED": "1",
    }
    return kept


def run(
    config: ProjectConfig,
    candidate_id: str,
    digest: str | None = None,
    *,
    head: str | None = None,
    run_id: str | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Publish an approved candidate, of which `digest` is the manifest's; return the fields of release.Published.

    `head`: digest of the audit log's newest entry, kept in the release's run.json.

    Raises what the publisher raised, by its exit code: PublishRefused, ApprovalRefused, StoreRefused, LeaseHeld, …;
    EnvironmentUnfit where its zones are on S3 and have no credentials of their own. It is ended with this process's
    wait (a task that is killed) and can be started again at any time.
    """
    for zone, url in (("CANDIDATE", config.zones.candidate), ("RELEASE", config.zones.release)):
        if (
            url.startswith("s3://")
            and "AWS_ACCESS_KEY_ID" in os.environ
            and f"TRE_{zone}_ACCESS_KEY_ID" not in os.environ
        ):
            raise EnvironmentUnfit(
                f"The publisher has no credentials for the {zone.lower()} zone: AWS_* is not passed on.",
                hint=f"Set TRE_{zone}_ACCESS_KEY_ID and TRE_{zone}_SECRET_ACCESS_KEY.",
            )
    command = [
        sys.executable,
        "-m",
        "pipeline.publisher",
        config.name,
        candidate_id,
        "--candidate",
        config.zones.candidate,
        "--release",
        config.zones.release,
    ]
    command += ["--digest", digest] if digest else []
    command += ["--audit-head", head] if head else []
    command += ["--run-id", run_id] if run_id else []
    command += ["--dry-run"] if dry_run else []
    command += ["--progress"] if observe.progress_shown() else []
    child = subprocess.Popen(
        command, env=environment(os.environ), cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    try:
        out, _ = child.communicate()
    except BaseException:  # a signal ends this process: the publisher goes with it
        child.terminate()
        child.wait()
        raise
    answer = _last_line(out)
    if child.returncode == 0 and answer is not None:
        return answer
    raise _error(child.returncode, answer)


def _last_line(out: str) -> dict[str, Any] | None:
    try:
        answer = json.loads(out.strip().rpartition("\n")[2])
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _error(code: int, answer: dict[str, Any] | None) -> TreError:
    if answer is None or "error" not in answer:
        return errors.Interrupted(
            f"The publisher ended without an answer (exit code {code}).",
            hint="Start it again: it goes on where it stopped.",
        )
    kind = next((k for k in _tree(TreError) if k.exit_code == code), TreError)
    return kind(answer["message"], hint=answer["hint"])


def _tree(kind: type[TreError]) -> Iterator[type[TreError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _tree(child)
