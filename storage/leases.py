"""Leases and claims: rows that say who runs a study, and who is making a measurement.

Their times are the database's own, so that clocks of machines need not agree. Each function runs in a transaction of
the caller's, and may be repeated where nobody knows whether it was committed.
"""

import json
import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Select, Update, delete, extract, func, insert, select, update

from nasplat.errors import InvalidInputError, LeaseLostError
from nasplat.storage import schema as s
from nasplat.storage.rows import StudyKey, canonical_json, storable
from nasplat.store import Holder


def acquire(c: Connection, study: StudyKey, owner: Mapping[str, Any], seconds: float, over: int | None) -> int | Holder:
    """Take the lease and return its token, or say who holds it."""
    row = c.execute(_driver(study).with_for_update()).one_or_none()
    now, who = clock(c), canonical_json(owner)
    if row is None:
        c.execute(insert(s.driver).values(study_id=study.id, token=1, **_taken(owner, now, seconds)))
        return 1
    if row.expires_at is not None and row.owner == who:
        c.execute(_change(study).values(heartbeat_at=now, expires_at=now + seconds))
        return int(row.token)
    if row.expires_at is not None and row.expires_at > now and row.token != over:
        return Holder(row.token, json.loads(row.owner), row.heartbeat_at, now - row.heartbeat_at)
    c.execute(_change(study).values(token=row.token + 1, **_taken(owner, now, seconds)))
    c.execute(delete(s.claim).where(s.claim.c.study_id == study.id))
    return int(row.token) + 1


def renew(c: Connection, study: StudyKey, token: int, seconds: float, status: Mapping[str, Any]) -> None:
    """Make the lease hold for so many seconds from now on."""
    now = clock(c)
    held = (s.driver.c.token == token, s.driver.c.expires_at.is_not(None))
    renewed = {"heartbeat_at": now, "expires_at": now + seconds, "status": dict(status)}
    if not c.execute(_change(study).where(*held).values(renewed)).rowcount:
        check(c, study, token)
        raise LeaseLostError(f"the lease {token} on study {study.name!r} was given back, so it cannot be renewed")


def release(c: Connection, study: StudyKey, token: int) -> None:
    """Give the lease and its claims back, if it was not lost."""
    if c.execute(_change(study).where(s.driver.c.token == token).values(expires_at=None)).rowcount:
        c.execute(delete(s.claim).where(s.claim.c.study_id == study.id))


def check(c: Connection, study: StudyKey, token: int) -> None:
    """Make sure that no later lease is given out before the transaction ends.

    Raises:
        InvalidInputError: If there never was such a lease.
        LeaseLostError: If a later one has been given out.
    """
    # Who wants to take the lease over waits for this row until the transaction has ended, and then finds it written.
    row = c.execute(_driver(study).with_for_update(read=True)).one_or_none()
    if row is None or row.token < token:
        raise InvalidInputError(f"nobody has been given lease {token} on study {study.name!r}; acquire it first")
    if row.token > token:
        owner = json.loads(row.owner)
        raise LeaseLostError(
            f"study {study.name!r} was taken over by process {owner.get('pid')} on host {owner.get('host')}, "
            "so this one may not write to it any more"
        )


def claim(c: Connection, study: StudyKey, token: int, identity: str) -> bool:
    """Whether the measurement is now claimed under this lease."""
    k, d = s.claim.c, s.driver.c
    now = clock(c)
    row = c.execute(select(s.claim).where(k.identity == identity).with_for_update()).one_or_none()
    mine = {"study_id": study.id, "token": token, "claimed_at": now}
    if row is None:
        # Of two that come here at once, the later one fails, tries again and finds the row of the other.
        c.execute(insert(s.claim).values(identity=identity, **mine))
        return True
    if (row.study_id, row.token) == (study.id, token):
        return True
    # Read after the claim's row is locked, so that it is not older than that.
    holds = select(d.token).where(d.study_id == row.study_id, d.token == row.token, d.expires_at > now)
    if c.execute(holds).first() is not None:
        return False
    c.execute(update(s.claim).where(k.identity == identity).values(mine))
    return True


def end_claims(c: Connection, study: StudyKey, identities: list[str]) -> None:
    """Delete claims of the study."""
    k = s.claim.c
    c.execute(delete(s.claim).where(k.study_id == study.id, k.identity.in_(identities)))


def _driver(study: StudyKey) -> Select[Any]:
    return select(s.driver).where(s.driver.c.study_id == study.id)


def _change(study: StudyKey) -> Update:
    return update(s.driver).where(s.driver.c.study_id == study.id)


def _taken(owner: Mapping[str, Any], now: float, seconds: float) -> dict[str, Any]:
    host, pid = owner.get("host"), owner.get("pid")
    return {
        "owner": canonical_json(owner),
        "host": storable(host) if isinstance(host, str) else None,
        "pid": pid if isinstance(pid, int) else None,
        "acquired_at": now,
        "heartbeat_at": now,
        "expires_at": now + seconds,
        "status": {},
    }


def clock(c: Connection) -> float:
    """Seconds since the epoch by the database's clock; SQLite's is that of its one machine."""
    if c.dialect.name != "postgresql":
        return time.time()
    return float(c.execute(select(extract("epoch", func.clock_timestamp()))).scalar_one())
