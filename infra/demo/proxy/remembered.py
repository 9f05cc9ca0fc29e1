"""For Swift's proxy: what it knows of accounts and containers, kept in the process itself in place of a memcached.

Without it every request asks the account and container servers again. It is loaded by Swift's own environment, so it
imports nothing of this project; one proxy process is all that may use it. The folder holds nothing else: it is put on
that process's path.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

App = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Remembered:
    """What of swift.common.memcached's client the proxy asks for. Values are kept as JSON, as a memcached would."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[float, str]] = {}

    def get(self, key: str, *_: Any, **__: Any) -> Any:
        until, text = self.held.get(key, (0.0, "null"))
        return json.loads(text) if until > time.monotonic() else None

    def set(self, key: str, value: Any, *_: Any, **given: Any) -> None:
        self.held[key] = (time.monotonic() + (given.get("time") or 60), json.dumps(value))

    def delete(self, key: str, *_: Any, **__: Any) -> None:
        self.held.pop(key, None)


def factory(_: dict[str, str], **__: str) -> Callable[[App], App]:
    """Return the filter, as Paste Deploy asks for it."""
    cache = Remembered()

    def around(app: App) -> App:
        def answer(env: dict[str, Any], start: Any) -> Iterable[bytes]:
            env["swift.cache"] = cache
            return app(env, start)

        return answer

    return around
