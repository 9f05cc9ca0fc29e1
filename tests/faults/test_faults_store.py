"""An S3 store that fails in every way a proxy can make it fail: success or StoreUnreachable, nothing half released, and
once it works again the same command ends with the same bytes."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from faults_kit import NAME, Bench
from proxy import KINDS, Proxy, proxy

from pipeline.errors import StoreUnreachable
from pipeline.publish.verify import verify
from pipeline.storage import open_store
from tests.helpers.s3 import Server, bucket, client, moto, point_zones

pytestmark = pytest.mark.xdist_group("faults")
PATIENT, SHORT = "30", "0.8"
TRIES = 3


@dataclass
class Store:
    """moto, and the proxy before it."""

    server: Server
    proxy: Proxy
    landing: str = ""
    staged: dict[str, str] = field(default_factory=dict)

    def env(self, zone: str, seconds: str) -> dict[str, str]:
        names = self.server.environment(zone)
        prefix = f"TRE_{zone.upper()}_"
        return {**names, f"{prefix}ENDPOINT_URL": self.proxy.url, f"{prefix}TIMEOUT_SECONDS": seconds}

    def objects(self, name: str) -> dict[str, bytes]:
        """What is in the bucket, asked behind the proxy."""
        found = client(self.server).list_objects_v2(Bucket=name).get("Contents", [])
        return {o["Key"]: client(self.server).get_object(Bucket=name, Key=o["Key"])["Body"].read() for o in found}


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with moto() as server, proxy(server.endpoint) as before:
        yield Store(server, before)


@pytest.fixture
def zones(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process reaches the store without the proxy."""
    point_zones(monkeypatch, store.server)
    yield
    store.proxy.calm()


def mixed(seed: object) -> tuple[list[str], float]:
    chosen = random.Random(f"faults {seed}")
    return chosen.sample(KINDS, chosen.randrange(2, len(KINDS))), chosen.choice([0.02, 0.1, 0.3])


def ends_well(bench: Bench, store: Store, words: list[Any], zone: str, kinds: list[str], rate: float, seed: object,
              look: Any) -> list[int]:
    """Run the command while the store fails, then while it does not; return the exit codes."""
    store.proxy.break_with(kinds, rate, seed)
    codes = []
    for _ in range(TRIES):
        ended = bench.run(["tre", *words], env=store.env(zone, SHORT))
        assert ended.code == 0, ended.log
        codes += ended.answer["results"]
        assert codes[-1] in (0, StoreUnreachable.exit_code), ended.log
        assert codes[-1] == 0 or "store_unreachable" in ended.log
        look()
        if codes[-1] == 0:
            break
    store.proxy.calm()
    ended = bench.run(["tre", *words], env=store.env(zone, PATIENT))
    assert ended.answer["results"] == [0], ended.log
    look()
    return codes


def publish(bench: Bench, store: Store, kinds: list[str], rate: float, seed: object) -> None:
    name = bucket(store.server)
    bench.before("publish")
    url = f"s3://{name}/release"

    def whole() -> None:
        """The manifest and what it lists are there, or current.json is not."""
        there = store.objects(name)
        if current := there.get(f"release/{NAME}/current.json"):
            assert verify(f"{url}/{NAME}/releases/{json.loads(current)['release']}").images > 20

    words = ["publish", str(bench.project), "--release", url]
    ends_well(bench, store, words, "release", kinds, rate, seed, whole)
    there = {key: hashlib.sha256(data).hexdigest() for key, data in store.objects(name).items()
             if not {"run.json", "leases"} & set(key.split("/")) and ".tre-" not in key}
    assert there == {key: digest for key, digest in bench.states["publish"].items() if key.startswith("release/")}


def stage(bench: Bench, store: Store, kinds: list[str], rate: float, seed: object) -> None:
    if not store.landing:
        store.landing = bucket(store.server)
        landing = bench.folder / "landing"
        for path in sorted(p for p in landing.rglob("*") if p.is_file()):
            key = str(path.relative_to(landing))
            client(store.server).put_object(Bucket=store.landing, Key=key, Body=path.read_bytes())
    words = ["stage", str(bench.project), "--landing", f"s3://{store.landing}"]
    if not store.staged:
        bench.restore(None)
        store.proxy.calm()
        assert bench.run(["tre", *words], env=store.env("landing", PATIENT)).answer["results"] == [0]
        store.staged = bench.digests("work")
        assert len(store.staged) > 20
    bench.restore(None)
    ends_well(bench, store, words, "landing", kinds, rate, seed, lambda: None)
    assert bench.digests("work") == store.staged


def test_a_refusal_that_is_not_dated_is_told_as_what_it_is(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something before the store gave it: that is no word on whether the store dates its answers."""
    for name, value in store.env("landing", SHORT).items():
        monkeypatch.setenv(name, value)
    zone = open_store(f"s3://{bucket(store.server)}/zone", "landing")
    store.proxy.break_with(["409"], 1.0, "undated")
    with pytest.raises(StoreUnreachable):
        zone.now()
    store.proxy.calm()
    assert zone.now()


@pytest.mark.parametrize("seed", range(2))
def test_publishing_to_a_store_that_fails(seed: int, bench: Bench, store: Store, zones: None) -> None:
    publish(bench, store, *mixed(seed), seed)


@pytest.mark.parametrize("seed", range(3))
def test_staging_from_a_store_that_fails(seed: int, bench: Bench, store: Store, zones: None) -> None:
    stage(bench, store, *mixed(seed), seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 15))
@pytest.mark.parametrize("step", [publish, stage])
def test_other_seeds(step: Any, seed: int, bench: Bench, store: Store, zones: None) -> None:
    step(bench, store, *mixed(seed), seed)


@pytest.mark.long
@pytest.mark.parametrize("rate", [0.03, 0.3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [publish, stage])
def test_every_fault_alone(step: Any, kind: str, rate: float, bench: Bench, store: Store, zones: None) -> None:
    step(bench, store, [kind], rate, f"{kind} {rate}")
    assert store.proxy.done[kind] or rate < 0.1 or (step is stage and kind == "cut")  # it lists once
