"""Work on landed objects in child processes, each object under a limit of time and memory that its worker cannot lift.

A worker is forked once and does one group of objects after another (a person's images, a slice of a listing). It notes
the object in hand on a clock that its parent reads. A worker that takes too long is killed; one that is gone is
replaced, and its group is done again, without an object that took too long or ended its worker twice. Memory is limited
by the kernel: what is refused shows in the worker as MemoryError, or ends it.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import multiprocessing
import os
import resource
import signal
import struct
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import Interrupted, TreError

G = TypeVar("G")
R = TypeVar("R")


TICK = 0.5              # seconds between two looks at the workers


@dataclass(frozen=True, slots=True)
class Limits:
    """What one object may take of its worker: seconds, with one more for each `bytes_per_second` of its size, and
    megabytes (2^20 bytes) on top of what the worker itself holds. Fetching from a store is timed by the store; a fetch
    that stalls all the same is given up after `fetch_seconds` on top of that."""

    seconds: float = 30.0
    megabytes: int = 1024
    bytes_per_second: int = 16 << 20
    fetch_seconds: float = 900.0

    @classmethod
    def of(cls, limit_seconds: float, limit_bytes: int) -> Limits:
        """Return the limits that a project file gives in [deidentify]."""
        return cls(limit_seconds, limit_bytes >> 20)


LIMITS = Limits()
_READING = struct.Struct("<qdq")        # object in hand or -1, when its time is up, whether it is being fetched
_DEATHS = 2                             # of a worker with the same object in hand; the first may be somebody's kill


class Clock:
    """Where a worker notes the object in hand, in memory that it shares with its parent."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._shared = mmap.mmap(-1, _READING.size)
        self.stop()

    def fetch(self, item: int, size: int) -> None:
        """Object number `item`, of `size` bytes, is being fetched."""
        self._note(item, size, self._limits.fetch_seconds, True)

    def start(self, item: int, size: int) -> None:
        """Work on the object begins, in whole or in part: its time runs from now."""
        self._note(item, size, self._limits.seconds, False)

    def stop(self) -> None:
        """No object is in hand."""
        _READING.pack_into(self._shared, 0, -1, 0.0, 0)

    def _note(self, item: int, size: int, seconds: float, fetching: bool) -> None:
        until = time.monotonic() + seconds + size / self._limits.bytes_per_second
        _READING.pack_into(self._shared, 0, item, until, fetching)

    def read(self) -> tuple[int, float, int]:
        return _READING.unpack_from(self._shared)


Work = Callable[[G, Clock, AbstractSet[int]], R]


def each(groups: Sequence[G], work: Work[G, R], *, workers: int = 1,
         limits: Limits = LIMITS) -> Generator[tuple[G, R], None, None]:
    """Yield every group with `work(group, clock, without)`, done in a worker; in order where there is one worker.

    `without` are the objects that the work must do without because they went over a limit. What work returns is
    pickled; what it raises is raised here. Close the generator where it is not read to its end. Raises Interrupted
    where workers keep ending with no object in hand.
    """
    waiting = deque(range(len(groups)))
    without: defaultdict[int, set[int]] = defaultdict(set)
    deaths: Counter[tuple[int, int]] = Counter()
    crew: list[_Worker] = []
    tick = min(TICK, limits.seconds / 4)

    def lost(worker: _Worker, late: bool) -> None:
        """Replace a worker that is gone, and have its groups done again."""
        item, _, fetching = worker.end()
        crew.remove(worker)
        number = worker.hand[0]
        deaths[number, item] += 1
        if deaths[number, item] >= _DEATHS or (late and not fetching):
            if item < 0:
                raise Interrupted("A worker process ended twice between two objects.", hint="Look at this machine's "
                                  "memory, and run the step again.")
            without[number].add(item)
        waiting.extendleft(reversed(worker.hand))

    try:
        while waiting or crew:
            while waiting and len(crew) < workers:
                crew.append(_Worker(groups, work, limits))
                crew[-1].give(waiting.popleft(), without)
            for worker in sorted(crew, key=lambda one: len(one.hand)):
                if waiting and len(worker.hand) < 2:    # one in advance: it need not wait until its answer is read
                    worker.give(waiting.popleft(), without)
                elif not worker.hand:
                    crew.remove(worker)
                    worker.end()
            if not crew:
                return
            ready = wait([worker.pipe for worker in crew], timeout=tick)
            for worker in list(crew):
                if worker.pipe in ready:
                    try:
                        done, answer = worker.pipe.recv()
                    except (EOFError, OSError):
                        lost(worker, late=False)
                        continue
                    if not done:
                        raise answer
                    yield groups[worker.hand.popleft()], answer
                elif worker.late():
                    lost(worker, late=True)
    finally:
        for worker in crew:
            worker.end()


class _Worker:
    """A child process, the groups given to it and not yet answered, and its clock."""

    def __init__(self, groups: Sequence[Any], work: Work[Any, Any], limits: Limits) -> None:
        self.hand: deque[int] = deque()
        self.clock = Clock(limits)
        self.pipe, theirs = multiprocessing.Pipe()
        self._up: tuple[object, float] | None = None    # what had used up its time at a look, and when that was
        # Forked: it starts in milliseconds and has all that its work needs; what it may not share (a store's
        # connections) its work opens anew.
        self._process = multiprocessing.get_context("fork").Process(
            target=_serve, args=(groups, work, self.clock, theirs, limits, os.getpid()), daemon=True)
        self._process.start()
        theirs.close()

    def give(self, number: int, without: defaultdict[int, set[int]]) -> None:
        self.hand.append(number)
        with suppress(BrokenPipeError, ConnectionResetError):       # gone: seen at the next look
            self.pipe.send((number, without[number]))

    def late(self) -> bool:
        """Whether an object's time was up, and still is half a second on: a machine that slept is no object's fault."""
        seen, now = self.clock.read(), time.monotonic()
        if seen[0] < 0 or now <= seen[1]:
            self._up = None
        elif self._up is None or self._up[0] != seen:
            self._up = seen, now
        return self._up is not None and now - self._up[1] >= TICK

    def end(self) -> tuple[int, float, int]:
        """End the process; return what its clock showed."""
        self._process.kill()
        self._process.join()
        self._process.close()
        self.pipe.close()
        return self.clock.read()


def _serve(groups: Sequence[Any], work: Work[Any, Any], clock: Clock, pipe: Connection, limits: Limits,
           parent: int) -> None:
    """The worker's life. It never returns: nothing that was to happen at its parent's end may happen here."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)        # the parent has it too, and ends this process
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _end_with(parent)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))    # a dump would hold identities
        _limit_memory(limits.megabytes << 20)
        gc.freeze()
        while True:
            number, without = pipe.recv()
            try:
                answer = True, work(groups[number], clock, without)
            except Exception as error:  # noqa: BLE001 - raised in the parent
                answer = False, _portable(error)
            clock.stop()
            pipe.send(answer)
    finally:
        os._exit(1)


def _portable(error: Exception) -> Exception:
    """Return an error that can be sent: the product's own and the machine's as they are."""
    if isinstance(error, TreError | OSError | MemoryError):
        error.__traceback__ = error.__context__ = error.__cause__ = None
        return error
    return Interrupted(f"{type(error).__name__} in a worker process (text withheld: it may quote a value).")


def _end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent is gone, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)          # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def _limit_memory(more: int) -> None:
    """Let this process hold `more` bytes beside what it holds now; mapped files do not count."""
    with suppress(OSError):     # no /proc, no limit: macOS, where only development is done
        status = Path("/proc/self/status").read_text()
        held = next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmData:"))
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        limit = held + more if most == resource.RLIM_INFINITY else min(held + more, most)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
