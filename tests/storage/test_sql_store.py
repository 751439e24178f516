"""The SQL store keeps the contract of stores, and its tables keep everything once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from nasplat.storage import SqlStore
from nasplat.store import Store
from nasplat.testing.stores import SharedStoreSuite, StoreSuite


class TestSqliteFile(SharedStoreSuite):
    @pytest.fixture
    def connect(self, tmp_path: Path) -> Callable[[], Store]:
        return lambda: SqlStore(tmp_path / "store.db")


class TestSqliteMemory(StoreSuite):
    @pytest.fixture
    def connect(self) -> Callable[[], Store]:
        return lambda: SqlStore("sqlite://")


class TestPostgresql(SharedStoreSuite):
    @pytest.fixture
    def connect(self, postgresql_url: str) -> Callable[[], Store]:
        return lambda: SqlStore(postgresql_url)
