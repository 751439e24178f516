"""Writing the trials of a study, set-wise."""

import time
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, TypeAlias, final

from sqlalchemy import Column, Connection, Table, insert, select

from nasplat.architecture import Architecture
from nasplat.attempt import Attempt
from nasplat.measurement import Measurement
from nasplat.storage import rows
from nasplat.storage import schema as s
from nasplat.storage.bulk import Values, ids_by, insert_many, insert_new, select_in, update_many
from nasplat.storage.rows import StudyKey
from nasplat.trial import Trial

TextIds: TypeAlias = dict[tuple[str, str], int]
"""Ids of contexts and provenances by table and content: few, long, and the same in most measurements."""


@final
class Measurements:
    """Measurements of trials with all that they refer to, written in a transaction that is the caller's.

    Args:
        c: Connection with an open transaction.
        trials: Whose architectures and measurements.
        contexts: The context of each trial's identity.
        texts: Ids known from earlier ones; grows. If the transaction fails it must be cleared.

    Attributes:
        architectures: Ids by space and fingerprint of all architectures of the trials.
    """

    def __init__(self, c: Connection, trials: Sequence[Trial], contexts: Mapping[str, str], texts: TextIds) -> None:
        self._c = c
        self._contexts = contexts
        self._texts = texts
        self.architectures = _architecture_ids(c, [t.proposal.architecture for t in trials])

    def identify(self, trials: Sequence[Trial]) -> tuple[dict[str, int], dict[str, Trial]]:
        """The measurement's id by identity, and the trials whose measurements were inserted, by identity."""
        identities = list(dict.fromkeys(t.identity for t in trials))
        key = s.measurement.c.identity
        ids = ids_by(self._c, key, identities)
        first: dict[str, Trial] = {}
        for t in trials:
            if t.identity not in ids:
                first.setdefault(t.identity, t)
        if not first:
            return ids, first
        # In one order everywhere, so that two writers with row locks never wait for each other in a circle.
        new = [self._row(first[identity], identity) for identity in sorted(first)]
        added = insert_new(self._c, key, rows.MEASUREMENT, new)
        _insert_details(self._c, {i: _measured(first[identity]) for identity, i in added.items()})
        if len(added) < len(first):
            ids |= ids_by(self._c, key, [identity for identity in first if identity not in added])
        return ids | added, {identity: first[identity] for identity in added}

    def insert_apart(self, t: Trial) -> int:
        """A measurement without identity."""
        values = dict(zip(rows.MEASUREMENT, self._row(t, None), strict=True))
        measurement_id = self._c.execute(insert(s.measurement).returning(s.measurement.c.id), values).scalar_one()
        _insert_details(self._c, {measurement_id: _measured(t)})
        return int(measurement_id)

    def _row(self, t: Trial, identity: str | None) -> Values:
        measured = _measured(t)
        context = self._text_id(s.context, self._contexts[t.identity])
        provenance = self._text_id(s.provenance, rows.canonical_json(measured.provenance))
        links = (self.architectures[_key(t)], context, provenance)
        return rows.measurement(t, measured.cost, identity, links, time.time())

    def _text_id(self, table: Table, content: str) -> int:
        key = (table.name, content)
        if key not in self._texts:
            digest = blake2b(content.encode(), digest_size=16).hexdigest()
            ids = _ensure(self._c, table.c.digest, ("digest", "content"), {digest: (digest, content)})
            self._texts[key] = ids[digest]
        return self._texts[key]


@final
class Batch:
    """Trials of a study, written in a transaction that is the caller's.

    Args:
        c: Connection with an open transaction.
        study: Whose trials.
        trials: Each number at most once.
        contexts: The context of each trial's identity.
        texts: Ids known from earlier batches; grows. If the transaction fails it must be cleared.
    """

    def __init__(
        self, c: Connection, study: StudyKey, trials: Sequence[Trial], contexts: Mapping[str, str], texts: TextIds
    ) -> None:
        self._c = c
        self._study = study
        self._trials = trials
        self._measurements = Measurements(c, trials, contexts, texts)

    def write(self) -> None:
        """Insert or update the trials."""
        study, stored = self._study, self._stored([t.number for t in self._trials])
        measured = {number: i for number, i in stored.items() if i is not None}
        unlinked = [t for t in self._trials if t.measurement is not None and t.number not in measured]
        if unlinked:
            measured |= self._link(unlinked)
        added: list[Values] = []
        changed: list[Values] = []
        parents: list[Values] = []
        for t in self._trials:
            outcome = rows.outcome(t, study, measured.get(t.number))
            if t.number in stored:
                changed.append((*outcome, study.id, t.number))
            else:
                added.append(rows.proposed(t, study.id, self._measurements.architectures[_key(t)]) + outcome)
                parents += [(study.id, t.number, i, parent) for i, parent in enumerate(t.proposal.parents)]
        insert_many(self._c, s.trial, rows.PROPOSED + rows.OUTCOME, added)
        insert_many(self._c, s.lineage, ("study_id", "number", "position", "parent"), parents)
        update_many(self._c, s.trial, rows.OUTCOME, ("study_id", "number"), changed)

    def _stored(self, numbers: Sequence[int]) -> dict[int, int | None]:
        """The measurements' ids by number of those of the trials that are stored."""
        query = select(s.trial.c.number, s.trial.c.measurement_id).where(s.trial.c.study_id == self._study.id)
        return {number: i for number, i in select_in(self._c, query, s.trial.c.number, numbers)}

    def _link(self, trials: Sequence[Trial]) -> dict[int, int]:
        """The measurement's id by the number of each of the trials, inserting those that are new.

        An identity is given to the first measurement of it. A study that paid for the same one at the same time keeps
        its own, without identity, where the results differ: it was told them, and replaying needs them again.
        """
        ids, first = self._measurements.identify(trials)
        repeated = self._stored(list({t.repeat_of for t in trials if t.repeat_of is not None}))
        linked: dict[int, int] = {}
        for t in trials:
            measurement_id = ids[t.identity]
            if t.repeat_of is not None:
                measurement_id = linked.get(t.repeat_of, repeated.get(t.repeat_of) or measurement_id)
            elif not t.saved and t is not first.get(t.identity) and not _equals(self._c, measurement_id, _measured(t)):
                measurement_id = self._measurements.insert_apart(t)
            linked[t.number] = measurement_id
        return linked


def write_attempts(c: Connection, study: StudyKey, attempts: Sequence[Attempt]) -> None:
    """Insert the attempts that are not there yet."""
    a = s.attempt.c
    query = select(a.number, a.attempt).where(a.study_id == study.id)
    there = {(number, n) for number, n in select_in(c, query, a.number, list({x.trial for x in attempts}))}
    new = {(x.trial, x.attempt): rows.attempt(x, study.id) for x in attempts if (x.trial, x.attempt) not in there}
    insert_many(c, s.attempt, rows.ATTEMPT, list(new.values()))


def _key(t: Trial) -> tuple[str, str]:
    return t.proposal.architecture.space, t.proposal.architecture.fingerprint


def _measured(t: Trial) -> Measurement:
    assert t.measurement is not None  # callers pass completed trials
    return t.measurement


def _equals(c: Connection, measurement_id: int, other: Measurement) -> bool:
    """Whether a stored measurement has the same results and cost."""
    row = c.execute(select(*rows.COST).where(s.measurement.c.id == measurement_id)).one()
    found = rows.details(c, [measurement_id])[measurement_id]
    return rows.cost(row) == other.cost and found.metrics == other.metrics and found.artifacts == dict(other.artifacts)


def _insert_details(c: Connection, measurements: Mapping[int, Measurement]) -> None:
    insert_many(
        c,
        s.metric,
        ("measurement_id", "name", "role", "value"),
        [(i, name, str(x.role), x.value) for i, m in measurements.items() for name, x in m.metrics.items()],
    )
    insert_many(
        c,
        s.artifact,
        ("measurement_id", "kind", "path"),
        [(i, kind, path) for i, m in measurements.items() for kind, path in m.artifacts.items()],
    )


def _architecture_ids(c: Connection, architectures: Iterable[Architecture]) -> dict[tuple[str, str], int]:
    """Ids by space and fingerprint, inserting those that are new."""
    by_space: dict[str, dict[str, Values]] = {}
    for a in architectures:
        by_space.setdefault(a.space, {})[a.fingerprint] = (a.space, a.fingerprint, a.text)
    ids: dict[tuple[str, str], int] = {}
    table = s.architecture.c
    for space in sorted(by_space):
        wanted = by_space[space]
        found = _ensure(c, table.fingerprint, ("space", "fingerprint", "text"), wanted, table.space == space)
        ids.update({(space, fingerprint): i for fingerprint, i in found.items()})
    return ids


def _ensure(
    c: Connection, key: Column[str], columns: Sequence[str], wanted: Mapping[str, Values], *conditions: Any
) -> dict[str, int]:
    """The id by key of each wanted row, inserting those whose key is not there yet."""
    ids = ids_by(c, key, list(wanted), *conditions)
    new = sorted(wanted.keys() - ids.keys())
    if new:
        ids |= insert_new(c, key, columns, [wanted[k] for k in new], *conditions)
        ids |= ids_by(c, key, sorted(wanted.keys() - ids.keys()), *conditions)
    return ids
