"""An Airflow of the demo's own: SQLite, LocalExecutor, simple auth manager, 127.0.0.1, everything below one directory.

For one machine and synthetic data. Passwords and secrets are made up anew each time and stand in files that only this
user can read.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ENGINEER, OFFICER = "demo-engineer", "demo-officer"
ROLES = {ENGINEER: "admin", OFFICER: "user"}
READY_SECONDS = 300.0


class DemoFailed(Exception):
    """The demo cannot go on; the message says why and where to look."""


@dataclass
class Airflow:
    """Where it runs, how to ask it, and what its processes see."""

    home: Path
    logs: Path
    extra: dict[str, str]
    port: int = 0
    passwords: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        self.port, self.log_port = free_ports(2)
        self.passwords = {user: secrets.token_urlsafe(12) for user in ROLES}
        private(self.home / "passwords.json", json.dumps(self.passwords))
        self.env = {**os.environ, **self.settings(), **self.extra}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def settings(self) -> dict[str, str]:
        settings: dict[str, dict[str, object]] = {
            "core": {
                "dags_folder": ROOT / "dags",
                "load_examples": False,
                "executor": "LocalExecutor",
                "parallelism": max(2, min(8, os.cpu_count() or 2)),
                "dags_are_paused_at_creation": False,
                "fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
                "execution_api_server_url": f"{self.url}/execution/",
                "simple_auth_manager_users": ",".join(f"{user}:{role}" for user, role in ROLES.items()),
                "simple_auth_manager_passwords_file": self.home / "passwords.json",
            },
            "database": {"sql_alchemy_conn": f"sqlite:///{self.home / 'airflow.db'}"},
            "api": {
                "host": "127.0.0.1", "port": self.port, "base_url": self.url, "workers": 1,
                "secret_key": secrets.token_urlsafe(48),
            },
            "api_auth": {"jwt_secret": secrets.token_urlsafe(64)},
            "logging": {"base_log_folder": self.logs / "tasks", "worker_log_server_port": self.log_port},
            "scheduler": {"scheduler_idle_sleep_time": 0.5, "enable_health_check": False},
            "workers": {"min_heartbeat_interval": 1},  # also how late the end of a task may be noticed
            "dag_processor": {"refresh_interval": 3600, "min_file_process_interval": 3600, "print_stats_interval": 0},
            "usage_data_collection": {"enabled": False},
        }  # fmt: skip
        return {"AIRFLOW_HOME": str(self.home)} | {
            f"AIRFLOW__{section.upper()}__{key.upper()}": str(value)
            for section, keys in settings.items()
            for key, value in keys.items()
        }

    # ---- processes -----------------------------------------------------------------------------------------------
    def start(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        """Start `airflow <words>` in a session of its own, its output in logs/<name>.log."""
        with (self.logs / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                [Path(sys.executable).with_name("airflow"), *words], env=self.env, cwd=self.home,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, preexec_fn=_die_with_us,
            )  # fmt: skip
        return self.running[name]

    def migrate(self) -> None:
        """Start making the metadata database; `up` waits for it."""
        self.start("migrate", "db", "migrate")

    def up(self) -> None:
        """Start what the demo needs of Airflow, and return when its API answers. Nothing here needs a triggerer."""
        if self.running.pop("migrate").wait():
            raise DemoFailed(f"Airflow's database could not be made: see {self.logs}/migrate.log.")
        self.start("api-server", "api-server")
        self.start("scheduler", "scheduler", "--skip-serve-logs")
        self.start("dag-processor", "dag-processor")
        self.wait("its API", lambda: self.ask("GET", "/api/v2/version", user=None))
        for name, pool in json.loads((ROOT / "infra" / "pools.json").read_text()).items():
            self.ask("POST", "/api/v2/pools", {"name": name, **pool})

    def wait(self, what: str, found: Any, seconds: float = READY_SECONDS) -> Any:
        """Return what `found` gives, once it gives something. An answer that is refused counts as nothing yet."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.check()
            with suppress(OSError):  # urllib's errors are OSErrors too
                if result := found():
                    return result
            time.sleep(0.5)
        raise DemoFailed(f"Waited {seconds:.0f} s for Airflow: {what}. Its logs are in {self.logs}.")

    def check(self) -> None:
        """Raise DemoFailed where a process of Airflow has ended."""
        for name, process in self.running.items():
            if process.poll() is not None:
                raise DemoFailed(f"Airflow's {name} ended ({process.returncode}): see {self.logs}/{name}.log.")

    def down(self) -> None:
        """Stop everything: asked first, then killed, with all that each process started."""
        for process in self.running.values():
            _signal(process, signal.SIGTERM)
        until = time.monotonic() + 4
        for process in self.running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=max(0.1, until - time.monotonic()))
            _signal(process, signal.SIGKILL)
            process.wait()
        self.running.clear()

    # ---- REST ----------------------------------------------------------------------------------------------------
    def ask(self, method: str, path: str, body: Any = None, user: str | None = ENGINEER) -> Any:
        """Call Airflow's REST API as `user`. Raises urllib's errors, which are OSErrors."""
        headers = {"Content-Type": "application/json"}
        if user:
            if user not in self.tokens:
                login = {"username": user, "password": self.passwords[user]}
                self.tokens[user] = self.ask("POST", "/auth/token", login, user=None)["access_token"]
            headers["Authorization"] = f"Bearer {self.tokens[user]}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


@contextmanager
def airflow(home: Path, logs: Path, extra: dict[str, str]) -> Iterator[Airflow]:
    """Yield an Airflow whose database is being made; stop all of it when the block ends, however it ends."""
    one = Airflow(home, logs, extra)
    one.migrate()
    try:
        yield one
    finally:
        one.down()


def private(path: Path, text: str) -> None:
    """Write a file that only this user can read."""
    path.touch(mode=0o600)
    path.write_text(text)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal the process and all of its session's group, also where the process itself has ended."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _die_with_us() -> None:
    """Ask Linux to stop the process when the demo is killed outright: nothing is left behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
