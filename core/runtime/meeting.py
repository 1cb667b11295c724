"""Where ranks meet before there is a process group: a store that one of them, or torchrun, keeps.

They say who they are, and tell the others when one of them fails, so that nobody waits for one that left.
"""

from __future__ import annotations

import atexit
import contextlib
import datetime
import errno
import gc
import ipaddress
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch.distributed as dist

from ..errors import RanksError, UserError, in_one_line
from . import messages
from .launchers import RankPlace
from .roll_call import Absent, RollCall
from .signals import Stopped

log = logging.getLogger("relume")

FAILED = "failed"
"""The key under which the first rank that fails says why."""
PATIENCE = 5.0
"""Seconds that the rank which keeps the store waits for the others to read why it leaves."""
ANSWER = 30.0
"""Seconds in which a store that accepted the connection must say whose it is."""
QUIET = 15.0
"""Seconds of waiting after which that is said."""
_kept: dict[int, dist.TCPStore] = {}
"""Stores that this process keeps, by port: they live as long as it does, for ranks that come late."""
_meetings = 0


class Meeting:
    """The ranks of a run, which can talk.

    Args:
        place: place of this rank.
        timeout: seconds to wait for any other rank.
        about: what else ranks say of themselves when they come (JSON), seen in `others`.
        asked: function that gives the exit code of a signal that has come, 0 without one: who is asked to leave does not
            wait for the others.

    Attributes:
        others: what each rank said of itself, with its ``host``.
        lost: ranks of which nothing is expected any more.
        roll: function called when ranks have lost touch.

    Raises:
        Stopped: a signal came here before the others did.
        UserError: rank 0 cannot be reached, its port is taken, another run answers there, or some rank does not come.
    """

    def __init__(
        self,
        place: RankPlace,
        timeout: float,
        about: dict[str, Any] | None = None,
        asked: Callable[[], int] = int,
    ) -> None:
        global _meetings
        _meetings += 1
        self.rank, self.world, self.timeout = place.rank, place.world, timeout
        self.place = place
        self.others: list[dict[str, Any]] = []
        self.lost: set[int] = set()
        self._said = 0
        self._asked = asked
        store = _keep(place, timeout) if place.rank == 0 and not place.kept else _reach(place, timeout, asked)
        # torchrun keeps its store over a restart, and a process may run twice: what was said before must not be heard.
        self.store = dist.PrefixStore(f"relume/{place.run or 'run'}/{place.attempt}/{_meetings}", store)
        self.roll = RollCall(self.store, place.rank, place.world, FAILED)
        if self.store.add(f"came/{place.rank}", 1) > 1:
            raise UserError(
                f"rank {place.rank} came twice to {place.address}:{place.port}: two runs meet there. MASTER_PORT (for SLURM, "
                "dist_params.port) gives each its own"
            )
        try:
            world = self.broadcast(self.world)
            if world != self.world:
                raise RanksError(
                    f"WORLD_SIZE is {world} on rank 0 and {self.world} on rank {self.rank}: start all ranks alike", 2
                )
            self.others = self.gather({"host": socket.gethostname(), **(about or {})})
        except BaseException as e:
            self.fail(e)
            raise
        self._asked = int  # from here on, all ranks decide together

    # ---------------------------------------------------------------- talking
    def broadcast(self, value: Any) -> Any:
        """Rank 0's `value` (see `messages.pack`) on every rank."""
        key = self._next()
        if self.rank == 0:
            self._say(key, value)
            return value
        return self._hear({0: key})[0]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's `value` (see `messages.pack`), in rank order, on every rank."""
        key = self._next()
        if self.rank:
            self._say(f"{key}/{self.rank}", value)
            heard: list[Any] = self._hear({0: key})[0]
            return heard
        every = self._hear({r: f"{key}/{r}" for r in range(1, self.world)})
        values = [value, *(every[r] for r in range(1, self.world))]
        self._say(key, values)
        return values

    def name(self, rank: int) -> str:
        """A rank in words."""
        return f"rank {rank} on {self.others[rank]['host']}" if self.others else f"rank {rank}"

    def _next(self) -> str:
        self._said += 1
        return f"said/{self._said}"

    def _say(self, key: str, value: Any) -> None:
        self.store.set(key, messages.pack(value))  # type: ignore[arg-type]  # bytes are taken, and are what `get` gives

    def _hear(self, keys: dict[int, str]) -> dict[int, Any]:
        """What ranks say under these keys, when all have.

        Raises:
            RanksError: some rank has failed meanwhile, or does not answer in time.
        """
        # Rank 0 collects, so it is the one that should name those who are missing; the others give it time to say so.
        late = self._wait(keys, self.timeout + (PATIENCE if self.rank else 0.0), FAILED)
        if late:
            raise RanksError(self._silent(late), 2, late)
        try:
            return {r: messages.unpack(self.store.get(k)) for r, k in keys.items()}
        except RuntimeError as e:
            raise self._gone() from e

    def _gone(self) -> RanksError:
        keeper = "torchrun" if self.place.kept else self.name(0)
        return RanksError(f"{keeper}, which keeps the ranks' store, is gone", 1, [0])

    def _silent(self, late: Iterable[int]) -> str:
        names = ", ".join(map(self.name, late))
        what = "did not answer" if self.others else f"did not come to {self.place.address}:{self.place.port}"
        return f"{names} {what} within {self.timeout:g} s (dist_params.timeout)"

    def _wait(self, keys: dict[int, str], seconds: float, unless: str | None) -> list[int]:
        """Wait for keys, by looking: a store's own waiting cannot be told to stop. The ranks whose keys did not come."""
        end, pause = time.monotonic() + seconds, 0.001
        left, remark = dict(keys), time.monotonic() + QUIET
        while True:
            try:
                left = {r: k for r, k in left.items() if not self.store.check([k])}
                if not left:
                    return []
                if unless is not None and self.store.check([unless]):
                    raise self._failure()
            except RuntimeError as e:
                raise self._gone() from e
            if code := self._asked():
                raise Stopped.early(code)
            now = time.monotonic()
            if now > end:
                return list(left)
            if now > remark:
                log.warning("waiting for %s", ", ".join(map(self.name, left)))
                remark = now + self.timeout
            time.sleep(min(pause, 0.2))
            pause *= 1.5

    # ---------------------------------------------------------------- failing
    def fail(self, error: BaseException) -> None:
        """Tell the others that this rank leaves because of an error; where it keeps the store, it stays until they know.

        It does so at its very end: what it has learnt, the others look for when its connections are closed.
        """
        said = {
            "rank": self.rank,
            "host": socket.gethostname(),
            "why": in_one_line(error),
            "code": error.code if isinstance(error, UserError) else 1,
            "of_all": isinstance(error, (RanksError, Stopped)),
        }
        with contextlib.suppress(RuntimeError):
            self.store.compare_set(FAILED, "", json.dumps(said))  # the first one counts
            self.store.add("left", 1)
            if self.rank == 0 and not self.place.kept:
                atexit.register(self._linger)

    def _linger(self) -> None:
        """Keep the store until all who came have left."""
        for name in ("last_exc", "last_value", "last_traceback"):
            vars(sys).pop(name, None)  # whose frames keep connections open
        gc.collect()
        with contextlib.suppress(RuntimeError):
            end = time.monotonic() + PATIENCE
            came = sum(self.store.check([f"came/{r}"]) for r in range(self.world) if r not in self.lost)
            while time.monotonic() < end and self.store.add("left", 0) < came:
                time.sleep(0.02)

    def failure(self, seconds: float = 0.0) -> RanksError | None:
        """Why another rank has failed, if one has, or does within some seconds."""
        try:
            late = self._wait({0: FAILED}, seconds, None)
            return None if late else self._failure()
        except RanksError as e:  # the store is gone
            return self._failure(self.roll.heard) if self.roll.heard is not None else e

    def roll_call(self, seconds: float) -> Absent:
        """The ranks that do not come to this call within some seconds; see `RollCall.call`.

        Raises:
            RanksError: the rank that keeps the store is gone.
        """
        try:
            return self.roll.call(seconds)
        except RuntimeError as e:
            raise self._gone() from e

    def _failure(self, heard: bytes | None = None) -> RanksError:
        said = json.loads(heard or self.store.get(FAILED))
        whose = "" if said["of_all"] else f"rank {said['rank']} on {said['host']} failed: "
        return RanksError(f"{whose}{said['why']}", int(said["code"]))


def _keep(place: RankPlace, timeout: float) -> dist.TCPStore:
    """The store that rank 0 keeps, reachable under the master's address only where that can be told."""
    if place.port in _kept:
        return _kept[place.port]
    try:
        listening = _listen(place)
    except OSError as e:
        raise UserError(
            f"rank 0 cannot listen on port {place.port} of {socket.gethostname()} ({e.strerror}): another run may have it. "
            "MASTER_PORT (for SLURM, dist_params.port) chooses another"
        ) from e
    number = listening.detach()
    store = dist.TCPStore(
        place.address,
        place.port,
        is_master=True,
        wait_for_workers=False,
        timeout=datetime.timedelta(seconds=timeout),
        master_listen_fd=number,
    )
    # A loading process that outlives its parent would keep the port.
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: os.close(number))
    store.set("relume/keeper", _said_of(place))
    _kept[place.port] = store
    return store


def _listen(place: RankPlace) -> socket.socket:
    """A socket on the master's port: on its address, or on all where that would leave nodes outside."""
    own = _address(place.address)
    if own is None:
        return _everywhere(place.port)
    loopback = ipaddress.ip_address(own).is_loopback
    named = place.address == "localhost" or own == place.address
    if loopback and not named and place.local_world != place.world:
        return _everywhere(
            place.port
        )  # a host whose own name means itself, as Debian has it, and another address elsewhere
    family = socket.AF_INET6 if ":" in own else socket.AF_INET
    try:
        return socket.create_server((own, place.port), family=family, backlog=2048)
    except OSError as e:
        if e.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            return _everywhere(place.port)
        raise


def _everywhere(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=2048)
    return socket.create_server(("", port), backlog=2048)


def _address(host: str) -> str | None:
    """What a host's name means here; None where it means nothing (yet), or several things."""
    try:
        found = {str(a[4][0]).partition("%")[0] for a in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return None
    four = {a for a in found if ":" not in a}
    best = four or found
    return best.pop() if len(best) == 1 else None


def _reach(place: RankPlace, timeout: float, asked: Callable[[], int]) -> dist.TCPStore:
    """The store that rank 0, or torchrun, keeps.

    Raises:
        Stopped: a signal has come before it was there.
        UserError: nobody is there, or another run is.
    """
    where = f"{place.address}:{place.port}"
    end, remark = time.monotonic() + timeout, time.monotonic() + QUIET
    # Wait until somebody answers at that address.
    while True:
        try:
            socket.create_connection((place.address, place.port), timeout=min(5.0, timeout)).close()
            break
        except OSError as e:
            why = e
        if code := asked():
            raise Stopped.early(code)
        if time.monotonic() > end:
            raise UserError(
                f"rank {place.rank} on {socket.gethostname()} cannot reach rank 0 at {where} within {timeout:g} s "
                f"(dist_params.timeout): {why.strerror or why}. MASTER_ADDR and MASTER_PORT say where it is"
            )
        if time.monotonic() > remark:
            log.warning("rank %d on %s waits for rank 0 at %s", place.rank, socket.gethostname(), where)
            remark = end
        time.sleep(0.1)
    # Ask whether it is rank 0 of this run.
    left = max(5.0, end - time.monotonic())
    try:
        store = dist.TCPStore(
            place.address,
            place.port,
            is_master=False,
            wait_for_workers=False,
            timeout=datetime.timedelta(seconds=min(left, ANSWER)),
        )
        if place.kept:
            return store
        until = time.monotonic() + ANSWER
        while not store.check(["relume/keeper"]) and time.monotonic() < until:
            time.sleep(0.02)
        found = store.get("relume/keeper").decode() if store.check(["relume/keeper"]) else "not Relume's"
    except RuntimeError as e:
        raise UserError(
            f"rank {place.rank} on {socket.gethostname()}: what answers at {where} is no run of Relume. MASTER_ADDR and "
            "MASTER_PORT say where rank 0 is"
        ) from e
    if found != _said_of(place):
        raise UserError(
            f"rank {place.rank} on {socket.gethostname()} is of {_said_of(place)}, but the run at {where} is {found}: "
            "they must not join. MASTER_PORT (for SLURM, dist_params.port) gives each its own"
        )
    return store


def _said_of(place: RankPlace) -> str:
    return (place.run or "a run without a job's number") + (f", restart {place.attempt}" if place.attempt else "")
