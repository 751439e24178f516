"""The tables.

A *measurement* is paid for once and has an identity; a *trial* is a proposal of a study and points to the
measurement that answered it, whoever paid. Numbers that SQL cannot hold (NaN) never get here; infinite ones do.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

VERSION_TABLE = "nasplat_alembic_version"
HEAD = "0003"
"""The revision of the schema that this code reads and writes."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

study = Table(
    "study",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("space", String(200), nullable=False),
    Column("task", String(500), nullable=False),
    Column("strategy", String(200), nullable=False),
    Column("goals", JSON, nullable=False),
    Column("config", JSON, nullable=False),
    Column("state", String(20), nullable=False),
    Column("parent_id", ForeignKey("study.id")),
    Column("created_at", Double, nullable=False),
)

architecture = Table(
    "architecture",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("space", String(200), nullable=False),
    Column("fingerprint", String(32), nullable=False),
    Column("text", Text, nullable=False),
    UniqueConstraint("fingerprint", "space"),
)

context = Table(
    "context",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("digest", String(32), nullable=False, unique=True),
    Column("content", Text, nullable=False),
)

provenance = Table(
    "provenance",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("digest", String(32), nullable=False, unique=True),
    Column("content", Text, nullable=False),
)

measurement = Table(
    "measurement",
    metadata,
    Column("id", Integer, primary_key=True),
    # Null where two studies made the same measurement at the same time with different results: the first one has the
    # identity, and the other one is kept for the study that was told it.
    Column("identity", String(32), unique=True),
    Column("architecture_id", ForeignKey("architecture.id"), nullable=False, index=True),
    Column("context_id", ForeignKey("context.id"), nullable=False),
    Column("provenance_id", ForeignKey("provenance.id"), nullable=False),
    Column("epochs", Integer, nullable=False),
    Column("data_fraction", Double, nullable=False),
    Column("resolution", Integer),
    Column("seed", BigInteger, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("gpu_seconds", Double, nullable=False),
    Column("peak_memory_bytes", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
)

metric = Table(
    "metric",
    metadata,
    Column("measurement_id", ForeignKey("measurement.id"), primary_key=True),
    Column("name", String(100), primary_key=True),
    Column("role", String(10), nullable=False),
    Column("value", Double, nullable=False),
    Index(None, "name", "value"),
    sqlite_with_rowid=False,
)

artifact = Table(
    "artifact",
    metadata,
    Column("measurement_id", ForeignKey("measurement.id"), primary_key=True),
    Column("kind", String(50), primary_key=True),
    Column("path", Text, nullable=False),
)

trial = Table(
    "trial",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey("study.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("architecture_id", ForeignKey("architecture.id"), nullable=False, index=True),
    Column("proposed", Text, nullable=False),
    Column("epochs", Integer, nullable=False),
    Column("data_fraction", Double, nullable=False),
    Column("resolution", Integer),
    Column("seed", BigInteger, nullable=False),
    Column("why", String(50), nullable=False),
    Column("asked_after", Integer, nullable=False),
    Column("identity", String(32), nullable=False),
    Column("state", String(10), nullable=False),
    Column("told", Integer),
    Column("saved", Boolean, nullable=False),
    Column("repeat_of", Integer),
    Column("attempts", Integer, nullable=False),
    Column("measurement_id", ForeignKey("measurement.id"), index=True),
    Column("failure_reason", String(20)),
    Column("failure_message", Text),
    Column("failure_traceback", Text),
    Column("failure_seconds", Double),
    Column("failure_gpu_seconds", Double),
    # The study's goals, negated where they are maximized, so that smaller is better; null where the trial is
    # unfinished, failed, at another fidelity or infeasible.
    Column("objective_0", Double),
    Column("objective_1", Double),
    Column("objective_2", Double),
    Column("objective_3", Double),
    Column("asked_at", Double, nullable=False),
    Column("finished_at", Double),
    UniqueConstraint("study_id", "number"),
    # Fronts and best trials of a study are read from it alone.
    Index("ix_trial_objectives", "study_id", *(f"objective_{i}" for i in range(4))),
)

lineage = Table(
    "lineage",
    metadata,
    Column("study_id", ForeignKey("study.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("parent", Integer, nullable=False),
    Index(None, "study_id", "parent"),
    sqlite_with_rowid=False,
)

event = Table(
    "event",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey("study.id"), nullable=False),
    Column("at", Double, nullable=False),
    Column("kind", String(50), nullable=False),
    Column("detail", JSON, nullable=False),
    Index(None, "study_id", "at"),
)

driver = Table(
    "driver",
    metadata,
    # A row stays when its lease ends, so that tokens never come again.
    Column("study_id", ForeignKey("study.id"), primary_key=True),
    Column("token", Integer, nullable=False),
    # Canonical JSON, so that equal owners are equal texts.
    Column("owner", Text, nullable=False),
    Column("host", Text),
    Column("pid", BigInteger),
    Column("acquired_at", Double, nullable=False),
    Column("heartbeat_at", Double, nullable=False),
    # Null when the lease has been given back.
    Column("expires_at", Double),
    Column("status", JSON, nullable=False),
)

claim = Table(
    "claim",
    metadata,
    Column("identity", String(32), primary_key=True),
    Column("study_id", ForeignKey("study.id"), nullable=False, index=True),
    # Of the lease under which it was made; it is void when that one is.
    Column("token", Integer, nullable=False),
    Column("claimed_at", Double, nullable=False),
)

attempt = Table(
    "attempt",
    metadata,
    Column("study_id", ForeignKey("study.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("started_at", Double, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("ended", String(20), nullable=False),
    # Null where no worker is known.
    Column("worker", Text),
    Column("host", Text),
    Column("pid", BigInteger),
    Column("gpu", Text),
    Column("exit_signal", Text, nullable=False),
    Column("log", Text, nullable=False),
)
