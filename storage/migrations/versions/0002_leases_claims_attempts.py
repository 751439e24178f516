"""Who runs a study, what is being measured, and what became of each start of a trial."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "driver",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=True),
        sa.Column("pid", sa.BigInteger(), nullable=True),
        sa.Column("acquired_at", sa.Double(), nullable=False),
        sa.Column("heartbeat_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("status", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("fk_driver_study_id_study")),
        sa.PrimaryKeyConstraint("study_id", name=op.f("pk_driver")),
    )
    op.create_table(
        "claim",
        sa.Column("identity", sa.String(length=32), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("claimed_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("fk_claim_study_id_study")),
        sa.PrimaryKeyConstraint("identity", name=op.f("pk_claim")),
    )
    op.create_index(op.f("ix_claim_study_id"), "claim", ["study_id"])
    op.create_table(
        "attempt",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("ended", sa.String(length=20), nullable=False),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("host", sa.Text(), nullable=True),
        sa.Column("pid", sa.BigInteger(), nullable=True),
        sa.Column("gpu", sa.Text(), nullable=True),
        sa.Column("exit_signal", sa.Text(), nullable=False),
        sa.Column("log", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("fk_attempt_study_id_study")),
        sa.PrimaryKeyConstraint("study_id", "number", "attempt", name=op.f("pk_attempt")),
    )
    op.add_column("trial", sa.Column("failure_gpu_seconds", sa.Double(), nullable=True))
    op.drop_index(op.f("ix_event_study_id"), table_name="event")
    op.create_index(op.f("ix_event_study_id_at"), "event", ["study_id", "at"])
