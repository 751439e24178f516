"""The documented views: the part of the database that users may rely on from release to release (docs/store.md).

They are derived, so each start of a new schema drops and makes them again.
"""

from sqlalchemy import Connection, text

_OBJECTIVES = range(4)
_NOT_WORSE = " AND ".join(f"COALESCE(o.objective_{i}, 0) <= COALESCE(t.objective_{i}, 0)" for i in _OBJECTIVES if i > 0)
_BETTER = " OR ".join(f"COALESCE(o.objective_{i}, 0) < COALESCE(t.objective_{i}, 0)" for i in _OBJECTIVES)
_LARGEST = "1.7976931348623157e308"


def _finite(trial: str) -> str:
    return " AND ".join(f"COALESCE({trial}.objective_{i}, 0) BETWEEN -{_LARGEST} AND {_LARGEST}" for i in _OBJECTIVES)


VIEWS: dict[str, str] = {
    "v_trial": """
        SELECT s.name AS study, t.number, a.space, t.proposed AS architecture, a.fingerprint, t.epochs,
               t.data_fraction, t.resolution, t.seed, t.why, t.state, t.saved, t.repeat_of, t.attempts,
               t.failure_reason, m.seconds, m.gpu_seconds, m.peak_memory_bytes, t.asked_at, t.finished_at,
               t.measurement_id, t.objective_0, t.objective_1, t.objective_2, t.objective_3
        FROM trial t
        JOIN study s ON s.id = t.study_id
        JOIN architecture a ON a.id = t.architecture_id
        LEFT JOIN measurement m ON m.id = t.measurement_id
    """,
    "v_metric": """
        SELECT s.name AS study, t.number, x.name AS metric, x.role, x.value
        FROM trial t
        JOIN study s ON s.id = t.study_id
        JOIN metric x ON x.measurement_id = t.measurement_id
    """,
    "v_best": """
        SELECT v.*
        FROM study s
        JOIN v_trial v ON v.study = s.name AND v.number = (
            SELECT t.number FROM trial t
            WHERE t.study_id = s.id AND t.objective_0 IS NOT NULL
            ORDER BY t.objective_0, t.number LIMIT 1)
    """,
    "v_pareto": f"""
        SELECT s.name AS study, t.number, t.proposed AS architecture, t.measurement_id,
               t.objective_0, t.objective_1, t.objective_2, t.objective_3
        FROM trial t
        JOIN study s ON s.id = t.study_id
        WHERE t.objective_0 IS NOT NULL AND t.repeat_of IS NULL AND {_finite("t")} AND NOT EXISTS (
            SELECT 1 FROM trial o
            WHERE o.study_id = t.study_id AND o.objective_0 <= t.objective_0 AND {_NOT_WORSE} AND ({_BETTER})
            AND {_finite("o")})
    """,
    "v_lineage": """
        SELECT s.name AS study, l.number AS child, l.parent, c.why,
               p.proposed AS parent_architecture, c.proposed AS child_architecture,
               p.objective_0 AS parent_objective, c.objective_0 AS child_objective,
               p.objective_0 - c.objective_0 AS improvement
        FROM lineage l
        JOIN study s ON s.id = l.study_id
        JOIN trial c ON c.study_id = l.study_id AND c.number = l.number
        JOIN trial p ON p.study_id = l.study_id AND p.number = l.parent
    """,
    "v_cost": """
        SELECT s.name AS study, COUNT(t.id) AS trials,
               SUM(CASE WHEN t.state = 'completed' THEN 1 ELSE 0 END) AS completed,
               SUM(CASE WHEN t.state = 'failed' THEN 1 ELSE 0 END) AS failed,
               SUM(CASE WHEN t.saved THEN 0 ELSE COALESCE(m.seconds, t.failure_seconds, 0) END) AS paid_seconds,
               SUM(CASE WHEN t.saved THEN 0 ELSE COALESCE(m.gpu_seconds, t.failure_gpu_seconds, 0) END)
                   AS paid_gpu_seconds,
               MAX(m.peak_memory_bytes) AS peak_memory_bytes
        FROM study s
        LEFT JOIN trial t ON t.study_id = s.id
        LEFT JOIN measurement m ON m.id = t.measurement_id
        GROUP BY s.id, s.name
    """,
    "v_saved": """
        SELECT s.name AS study, COUNT(t.id) AS saved_trials,
               SUM(CASE WHEN t.id IS NOT NULL AND t.repeat_of IS NULL THEN 1 ELSE 0 END) AS saved_by_other_studies,
               SUM(COALESCE(m.seconds, t.failure_seconds, 0)) AS saved_seconds,
               SUM(COALESCE(m.gpu_seconds, t.failure_gpu_seconds, 0)) AS saved_gpu_seconds
        FROM study s
        LEFT JOIN trial t ON t.study_id = s.id AND t.saved
        LEFT JOIN measurement m ON m.id = t.measurement_id
        GROUP BY s.id, s.name
    """,
    "v_attempt": """
        SELECT s.name AS study, a.number, a.attempt, a.ended, a.worker, a.host, a.pid, a.gpu, a.exit_signal,
               a.started_at, a.seconds, a.log
        FROM attempt a
        JOIN study s ON s.id = a.study_id
    """,
    "v_running": """
        SELECT s.name AS study, d.host, d.pid, d.token, d.acquired_at, d.heartbeat_at, d.expires_at
        FROM driver d
        JOIN study s ON s.id = d.study_id
        WHERE d.expires_at IS NOT NULL
    """,
}


def drop_views(connection: Connection) -> None:
    """Drop every view that is there."""
    for name in reversed(VIEWS):
        connection.execute(text(f"DROP VIEW IF EXISTS {name}"))


def create_views(connection: Connection) -> None:
    """Make every view."""
    for name, select in VIEWS.items():
        connection.execute(text(f"CREATE VIEW {name} AS {select}"))
