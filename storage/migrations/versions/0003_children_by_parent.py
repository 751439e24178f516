"""Children are found by their parent."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(op.f("ix_lineage_study_id_parent"), "lineage", ["study_id", "parent"])
