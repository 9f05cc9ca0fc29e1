"""An S3 store for the demo and the tests: OpenStack Swift with its s3api on 127.0.0.1, from PyPI alone, without root.

Four processes (account, container, object, proxy) run from an environment of their own (requirements/demo-s3.txt) on
free ports; data, rings and configuration stand below one directory, and data there survive a restart. One replica, one
device, a fixed secret: for synthetic data on one machine, never for a service.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import EnvironmentUnfit

SERVERS = ("account", "container", "object")
ACCOUNT, USER, SECRET, REGION = "tre", "demo", "demo-secret", "us-east-1"
# No `cache`, which needs a memcached; `remembered` stands in its place.
PIPELINE = (
    "catch_errors gatekeeper healthcheck remembered listing_formats bulk tempurl s3api tempauth copy slo dlo"
    " versioned_writes symlink proxy-server"
)
# Every other filter is Swift's own; those that need no setting are written by name alone.
SETTINGS = {
    "s3api": f"s3_acl = false\nlocation = {REGION}\nallow_multipart_uploads = true\nmax_upload_part_num = 10000",
    "tempauth": f"user_{ACCOUNT}_{USER} = {SECRET} .admin",
}
READY_SECONDS = 60.0


@dataclass(frozen=True)
class SwiftServer:
    """Where the store answers, and the credentials it takes."""

    endpoint: str
    access_key: str
    secret_key: str
    region: str

    def environment(self, *zones: str) -> dict[str, str]:
        """Return the variables that give these zones the store (see pipeline.storage.open_store)."""
        values = {
            "ENDPOINT_URL": self.endpoint,
            "ACCESS_KEY_ID": self.access_key,
            "SECRET_ACCESS_KEY": self.secret_key,
            "REGION": self.region,
        }
        return {f"TRE_{zone.upper()}_{name}": value for zone in zones for name, value in values.items()}

    def create_bucket(self, name: str) -> None:
        """Make a bucket; one that is there is left as it is."""
        import boto3

        credentials = {"aws_access_key_id": self.access_key, "aws_secret_access_key": self.secret_key}
        client = boto3.client("s3", endpoint_url=self.endpoint, region_name=self.region, **credentials)
        with suppress(client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=name)


@contextmanager
def swift(directory: Path, venv: Path) -> Iterator[SwiftServer]:
    """Run Swift with its data below `directory` until the block ends, however it ends.

    Raises EnvironmentUnfit where this machine cannot run it.
    """
    directory, venv = directory.resolve(), venv.absolute()
    check(directory, venv)
    ports = dict(zip((*SERVERS, "proxy"), _free_ports(len(SERVERS) + 1), strict=True))
    configure(directory, venv, ports)
    endpoint = f"http://127.0.0.1:{ports['proxy']}"
    with ExitStack() as running:
        processes = {name: running.enter_context(_process(directory, venv, name)) for name in ports}
        _wait(endpoint, processes, ports, directory)
        yield SwiftServer(endpoint, f"{ACCOUNT}:{USER}", SECRET, REGION)


def check(directory: Path, venv: Path) -> None:
    """Raise EnvironmentUnfit, saying what is missing, where Swift cannot run."""
    if not (venv / "bin" / "swift-proxy-server").exists():
        hint = "Make a venv, and install requirements/demo-s3.txt in it with pip's --require-hashes (`make` does)."
        raise EnvironmentUnfit("The environment of the S3 store (.venv-s3) is not there.", hint=hint)
    directory.mkdir(parents=True, exist_ok=True)
    try:
        os.setxattr(directory, "user.swift.metadata", b"x")
        os.removexattr(directory, "user.swift.metadata")
    except (AttributeError, OSError):
        hint = "Give a directory on ext4, XFS or Btrfs, or choose file zones (DEMO_STORE=file)."
        raise EnvironmentUnfit("Swift's disk needs extended attributes (user.*), and has none.", hint=hint) from None


def configure(directory: Path, venv: Path, ports: dict[str, int]) -> None:
    """Write rings and configuration for these ports. The data below `devices/` stay as they are."""
    (directory / "devices" / "d1").mkdir(parents=True, exist_ok=True)
    # part of every object's place on disk: it must not change between starts
    (directory / "swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = tre-demo\n")
    for name in SERVERS:
        builder = directory / f"{name}.builder"
        builder.unlink(missing_ok=True)
        device = f"r1z1-127.0.0.1:{ports[name]}/d1"
        for words in (["create", "4", "1", "0"], ["add", device, "1"], ["rebalance", "1"]):
            command = [venv / "bin" / "swift-ring-builder", builder, *words]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode > 1:  # 1 is a warning
                raise EnvironmentUnfit(f"swift-ring-builder failed ({done.returncode}): {done.stdout[-300:]}")
        _write_conf(directory, name, ports, f"{name}-server", f"[app:{name}-server]\nuse = egg:swift#{name}\n")
    app = "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\nallow_account_management = true\n"
    uses = {"remembered": "paste.filter_factory = remembered:factory"}
    filters = (f"[filter:{name}]\n{uses.get(name, f'use = egg:swift#{name}')}\n{SETTINGS.get(name, '')}\n"
               for name in PIPELINE.split()[:-1])  # fmt: skip
    _write_conf(directory, "proxy", ports, PIPELINE, app + "\n".join(filters))


def _write_conf(directory: Path, name: str, ports: dict[str, int], pipeline: str, sections: str) -> None:
    head = {
        "bind_ip": "127.0.0.1", "bind_port": ports[name], "workers": 0, "user": _user(), "swift_dir": directory,
        "devices": directory / "devices", "mount_check": "false", "log_level": "WARNING", "max_clients": 256,
    }  # fmt: skip
    lines = "\n".join(f"{key} = {value}" for key, value in head.items())
    text = f"[DEFAULT]\n{lines}\n\n[pipeline:main]\npipeline = {pipeline}\n\n{sections}"
    (directory / f"{name}-server.conf").write_text(text)


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


@contextmanager
def _process(directory: Path, venv: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [venv / "bin" / f"swift-{name}-server", directory / f"{name}-server.conf", "-v"]
    with (directory / f"{name}.log").open("wb") as log:
        # a session of its own: Ctrl-C reaches us only, and we stop the servers in order
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, preexec_fn=_die_with_us,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent / "proxy")},
        )  # fmt: skip
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _die_with_us() -> None:
    """Ask Linux to stop the server when the thread that started it is killed: nothing is left behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _wait(endpoint: str, processes: dict[str, subprocess.Popen[bytes]], ports: dict[str, int], directory: Path) -> None:
    """Return when every server listens and the proxy says that it is well."""
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until:
        for name, process in processes.items():
            if process.poll() is not None:
                tail = (directory / f"{name}.log").read_text(errors="replace")[-500:]
                raise EnvironmentUnfit(f"Swift's {name} server stopped ({process.returncode}): {tail}")
        with suppress(OSError):  # urllib's errors are OSErrors too
            for port in ports.values():
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
            with urllib.request.urlopen(f"{endpoint}/healthcheck", timeout=5):
                return
        time.sleep(0.1)
    raise EnvironmentUnfit(f"Swift did not answer within {READY_SECONDS:.0f} s; its logs are in {directory}.")
