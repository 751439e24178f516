"""News of running searches for all who look: one look at the database serves everybody."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any, final

from starlette.concurrency import run_in_threadpool

from nasplat.dashboards.views import overview
from nasplat.dashboards.views.context import Context, plain
from nasplat.errors import NasplatError
from nasplat.storage.browsing import details

MOST_LISTENERS = 500
"""At a time; what is over it is told to come back, so that pages and queries keep their share of file handles."""
_LOOK_SECONDS = 0.5
_IDLE_SECONDS = 5.0
"""Between looks where nobody writes: drivers fall silent, and large studies have been read."""
_BEAT_SECONDS = 15.0
"""After so much silence a listener gets a comment: proxies close what is silent, and who has gone is noticed."""


@final
class News:
    """Tells listeners how the study that they look at, or all of them, changes.

    Args:
        context: The store.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._listeners: dict[asyncio.Queue[str | None], str | None] = {}
        self._task: asyncio.Task[None] | None = None
        self._last: dict[str | None, str] = {}
        self._reading = False  # whether studies are still being counted or read for the first time

    @property
    def full(self) -> bool:
        """Whether nobody else can listen."""
        return len(self._listeners) >= MOST_LISTENERS

    def close(self) -> None:
        """End looking, and what listeners are told: a server waits for answers that are under way."""
        if self._task is not None:
            self._task.cancel()
        for queue in self._listeners:
            with contextlib.suppress(asyncio.QueueEmpty):
                queue.get_nowait()
            queue.put_nowait(None)

    async def listen(self, study: str | None) -> AsyncIterator[str]:
        """Server-sent events: how a study stands, now and whenever that changes; without a study, all of them.

        A listener who reads too slowly misses what is older than the newest event, which has everything.
        """
        queue: asyncio.Queue[str | None] = asyncio.Queue(1)
        self._listeners[queue] = study
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())
        try:
            yield "retry: 2000\n\n"
            if study in self._last:
                yield self._last[study]
            while True:
                try:
                    event = await asyncio.wait_for(queue.get(), _BEAT_SECONDS)
                except TimeoutError:
                    event = ": still here\n\n"
                if event is None:
                    return
                yield event
        finally:
            del self._listeners[queue]

    async def _look(self) -> None:
        """Look while anybody listens."""
        changed = await run_in_threadpool(self._context.database.changes)
        looked_at = 0.0
        try:
            while self._listeners:
                wanted, now = set(self._listeners.values()), time.monotonic()
                news = await run_in_threadpool(changed) or self._reading or not wanted <= self._last.keys()
                if news or now > looked_at + _IDLE_SECONDS:
                    looked_at, self._reading = now, False
                    for study in wanted:
                        await self._tell(study)
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            self._last.clear()

    async def _tell(self, study: str | None) -> None:
        try:
            state = await run_in_threadpool(self._state, study)
        except NasplatError as error:
            state = {"error": str(error)}
        event = f"data: {json.dumps(plain(state))}\n\n"
        if self._last.get(study) == event:
            return
        self._last[study] = event
        for queue, of in list(self._listeners.items()):
            if of == study:
                with contextlib.suppress(asyncio.QueueEmpty):
                    queue.get_nowait()
                queue.put_nowait(event)

    def _state(self, study: str | None) -> dict[str, Any]:
        database = self._context.database
        drivers = details.drivers(database)
        if study is None:
            rows = overview.studies(self._context)
            self._reading |= any(row["summary"] is None for row in rows)
            return {"studies": rows}
        info = database.study(study)
        summary = overview.summary(self._context, info, self._context.frames.totals(info))
        self._reading |= summary is None
        return {"study": {**overview.facts(info, drivers.get(info.id)), "summary": summary}}
