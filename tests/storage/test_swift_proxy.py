"""What the demo's Swift remembers of accounts and containers between requests, without a memcached."""

from __future__ import annotations

import time

from infra.demo.proxy.remembered import Remembered, factory


def test_what_is_remembered_is_a_copy_that_runs_out_and_can_be_taken_back() -> None:
    cache = Remembered()
    known = {"status": 204, "sysmeta": {}}
    cache.set("container/a/b", known, time=60, raise_on_error=True)
    known["status"] = 404
    assert cache.get("container/a/b", raise_on_error=True) == {"status": 204, "sysmeta": {}}
    cache.delete("container/a/b")
    assert cache.get("container/a/b") is None
    cache.set("account/a", {"status": 204}, time=0.01)
    time.sleep(0.02)
    assert cache.get("account/a") is None


def test_every_request_of_one_proxy_sees_the_same() -> None:
    seen = []
    app = factory({})(lambda env, _start: [seen.append(env["swift.cache"]) or b""])
    app({}, None)
    app({}, None)
    assert seen[0] is seen[1] and isinstance(seen[0], Remembered)
