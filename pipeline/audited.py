"""Steps that the audit log tells of: entered before they begin and when they end (govern/audit_log.py).

What of a step's arguments and result may stand in the log is chosen here, by name.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec

from pipeline.side import account, config_of, zone

P = ParamSpec("P")
_IDS = ("candidate", "digest", "recall", "source_sha256")       # opaque, or not entered
_WHO = ("approver", "who", "by")


def audited(what: str = "") -> Callable[[Callable[P, dict[str, Any]]], Callable[P, dict[str, Any]]]:
    """Enter every call of a step but dry runs, as `what`; without it, as the decision that is its argument.

    A step takes the project first. It does not begin where its entry cannot be written.
    """

    def wrap(step: Callable[P, dict[str, Any]]) -> Callable[P, dict[str, Any]]:
        signature = inspect.signature(step)

        @functools.wraps(step)
        def entered(*args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
            from pipeline.govern import audit_log

            given = signature.bind(*args, **kwargs).arguments
            if given.get("dry_run"):
                return step(*args, **kwargs)
            config = config_of(given["project"])
            who = next((str(given[name]) for name in _WHO if str(given.get(name) or "").strip()), account())
            ids = {name: str(given[name]) for name in _IDS if given.get(name)}
            verb = what or ("approve" if given.get("decision") == "approve" else "reject")
            with audit_log.act(zone(config, "work"), config.name, verb, who, ids=ids,
                               reason=str(given.get("reason") or "")) as doing:
                result = step(*args, **kwargs)
                doing.note(result)
            return result

        return entered

    return wrap
