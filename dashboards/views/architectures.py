"""One architecture: its drawing, all its measurements, where it came from, how to build it."""

import json
from collections.abc import Mapping
from typing import Any

from nasplat.dashboards.views.context import Context, Data, plain
from nasplat.errors import NasplatError
from nasplat.storage.browsing import details


def of_trial(context: Context, study: str, number: int) -> Data:
    """The architecture of a trial."""
    info = context.database.study(study)
    found = details.trial(context.database, info, number)
    provenance = found.pop("provenance")
    known = details.architecture(context.database, found["space"], found["fingerprint"])
    line = details.ancestors(context.database, info, number)
    return plain(  # type: ignore[no-any-return]
        {
            "trial": found,
            "provenance": json.loads(provenance) if provenance else None,
            "architecture": known,
            "counts": _counts(known),
            "ancestors": line[1:],
            **_drawn(context, info.config, found["architecture"]),
            "goals": [{"metric": g.metric, "maximize": g.maximize} for g in info.goals],
        }
    )


def _counts(known: Mapping[str, Any]) -> dict[str, float]:
    """Parameters and FLOPs, where some measurement has them."""
    for measurement in known["measurements"]:
        counts = {name: measurement["metrics"][name] for name in ("params", "flops") if name in measurement["metrics"]}
        if counts:
            return counts
    return {}


def _drawn(context: Context, config: Mapping[str, Any], text: str) -> Data:
    try:
        graph = context.catalog.graph(config, text)
        choices = context.catalog.choices(config, [text])[0]
        code = context.catalog.code(config, text)
    except NasplatError as error:
        # The store may come from a machine with other plug-ins; the numbers are worth seeing all the same.
        return {"graph": None, "choices": {}, "code": None, "not_drawn": str(error)}
    return {
        "graph": {"nodes": list(graph.nodes), "edges": [list(edge) for edge in graph.edges]},
        "choices": choices,
        "code": code,
        "not_drawn": None,
    }
