"""`tre listen`: be sent images, into landing. Runs until it is told to stop (SIGTERM, Ctrl-C)."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from typing import Annotated

import typer

from pipeline import observe
from pipeline.cli import project
from pipeline.cli.show import examples

EXAMPLES = examples(
    "tre listen PROJECT.toml",
    "tre listen PROJECT.toml --port 11112",
    "curl -s http://127.0.0.1:11113/healthz",
    "storescu -aec TRE -aet CT1 127.0.0.1 11112 image.dcm",
)


def listen(
    project_file: project.ProjectFile,
    landing: project.Landing = None,
    port: Annotated[int | None, typer.Option(help="Instead of the project file's.", min=0, max=65535)] = None,
) -> None:
    """Be sent images (C-STORE SCP): each is in landing, durable, before its sender hears yes.

    Who may send, over what and how much, says the section "listen" of the project file.
    """
    from pipeline.retrieve.listener import listening

    config = project.load(project_file, landing=landing)
    if port is not None and config.listen is not None:
        config = config.model_copy(update={"listen": config.listen.model_copy(update={"port": port})})
    observe.verbose()
    with listening(config) as listener:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: listener.stop())
        tls = "with TLS" if config.listen and config.listen.certificate else "without TLS"
        asked = f", health on port {listener.health_port}" if listener.health_port else ""
        print(f"listening on port {listener.port} {tls}{asked}", flush=True)
        _tell_systemd("READY=1")
        listener.run()
        _tell_systemd("STOPPING=1")
    counts = listener.counts
    print(f"stopped: {counts.get('stores_total', 'received')} received, "
          f"{counts.get('stores_total', 'seen_again')} seen again")


def _tell_systemd(state: str) -> None:
    """Say to systemd (Type=notify) how far we are, where it started us. See sd_notify(3)."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
