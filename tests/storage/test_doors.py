"""What cannot be opened is refused with one clear line."""

import multiprocessing
import sqlite3
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nasplat.errors import InvalidInputError, NasplatError, StoreError
from nasplat.storage import Query, Reader, SqlStore
from nasplat.testing.stored import completed, contexts, record
from tests.storage.postgresql import PostgresServer

OPENERS = [SqlStore, Reader]


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A store with a study and a trial."""
    path = tmp_path / "store.db"
    fill(path)
    return path


def fill(path: Path) -> None:
    with SqlStore(path) as store:
        store.create_study(record("a"))
        store.write("a", [completed(0)], contexts([completed(0)]))


@pytest.mark.parametrize("open_", OPENERS)
class TestPaths:
    def test_a_file_that_is_no_database(self, tmp_path: Path, open_: Callable[[Path], object]) -> None:
        path = tmp_path / "notes.txt"
        path.write_text("not a database, only notes\n" * 100)
        with pytest.raises(
            StoreError, match=r"cannot open the store .*notes\.txt: file is not a database; give another"
        ):
            open_(path)
        assert path.read_text().startswith("not a database")

    def test_a_cut_off_database(self, full: Path, open_: Callable[[Path], object]) -> None:
        full.write_bytes(full.read_bytes()[:5_000])
        with pytest.raises(StoreError, match=r"cannot open the store .*malformed"):
            open_(full)

    def test_a_folder(self, tmp_path: Path, open_: Callable[[Path], object]) -> None:
        with pytest.raises(StoreError, match="is a folder; give the path of a file in it"):
            open_(tmp_path)

    def test_a_path_in_no_folder(self, tmp_path: Path, open_: Callable[[Path], object]) -> None:
        with pytest.raises(StoreError, match=r"no folder .*missing; make it first|there is no store at"):
            open_(tmp_path / "missing" / "store.db")
        assert not (tmp_path / "missing").exists()


def test_a_store_that_is_not_there_is_not_made_by_reading(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no store at .*store\.db; run a search first"):
        Reader(tmp_path / "store.db")
    assert list(tmp_path.iterdir()) == []


def test_someone_elses_database_is_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE trial (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="holds no nasplat store"):
        Reader(path)
    assert path.read_bytes() == before
    with pytest.raises(StoreError, match="table trial already exists"):
        SqlStore(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("trial",)]


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.touch()
    with pytest.raises(StoreError, match="holds no nasplat store"):
        Reader(path)
    SqlStore(path).close()
    Reader(path).close()


class TestPermissions:
    def test_a_read_only_folder(self, tmp_path: Path, unprivileged: Callable[[], Path]) -> None:
        folder = unprivileged()
        folder.chmod(0o555)
        with pytest.raises(StoreError, match="unable to open database file; make the file and its folder writable"):
            SqlStore(folder / "store.db")

    def test_a_read_only_file_cannot_be_written(self, unprivileged: Callable[[], Path]) -> None:
        path = unprivileged() / "store.db"
        fill(path)
        path.chmod(0o444)
        with pytest.raises(StoreError, match="readonly database; make the file and its folder writable"):
            SqlStore(path)

    def test_a_read_only_file_can_be_read(self, unprivileged: Callable[[], Path]) -> None:
        path = unprivileged() / "store.db"
        fill(path)
        path.chmod(0o444)
        with Reader(path) as reader:
            assert [r["number"] for r in reader.page(Query())] == [0]
            assert reader.sql("SELECT study FROM v_trial") == [{"study": "a"}]

    def test_a_file_that_may_not_be_read(self, unprivileged: Callable[[], Path]) -> None:
        path = unprivileged() / "store.db"
        fill(path)
        path.chmod(0o000)
        for open_ in OPENERS:
            with pytest.raises(StoreError, match="unable to open database file"):
                open_(path)


SECRET = "hunter2"
URLS = [
    f"postgresql://me:{SECRET}@host:port/db",
    f"postgresql://me:{SECRET}@host:5432:77/db",
    f"://me:{SECRET}@host/db",
    f"nonsense://me:{SECRET}@host/db",
    f"post gres://me:{SECRET}@host/db",
    f"mysql://me:{SECRET}@host/db",
    f"postgresql+nonsense://me:{SECRET}@host/db",
    f"postgresql://me:{SECRET}@127.0.0.1:1/db?connect_timeout=2",
    f"postgresql://me:{SECRET}@host.invalid/db?connect_timeout=2",
    f"postgresql://me@127.0.0.1:1/db?connect_timeout=2&password={SECRET}",
    f"sqlite://me:{SECRET}@host/db",
]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("open_", OPENERS)
def test_no_error_tells_the_password(url: str, open_: Callable[[str], object]) -> None:
    with pytest.raises(NasplatError) as caught:
        open_(url)
    check_secrecy(caught)


@pytest.mark.parametrize("open_", OPENERS)
def test_a_password_that_the_server_refuses(postgresql_server: PostgresServer, open_: Callable[[str], object]) -> None:
    with pytest.raises(
        StoreError, match=r"cannot open the store postgresql.*nasplat:\*\*\*@.*authentication failed"
    ) as caught:
        open_(postgresql_server.url("postgres", SECRET))
    check_secrecy(caught)


def check_secrecy(caught: pytest.ExceptionInfo[NasplatError]) -> None:
    told = [str(caught.value), repr(caught.value)]
    # As a user sees it: source lines of this file, which hold the password, are no part of the chain of causes.
    link: BaseException | None = caught.value
    while link is not None:
        told += traceback.format_exception_only(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    assert SECRET not in "".join(told)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["postgresql://host:port/db", "://x", "what is this://x"])
def test_a_malformed_url(url: str) -> None:
    with pytest.raises(InvalidInputError, match="not a database URL: expected dialect://"):
        SqlStore(url)


def test_a_driver_that_is_not_installed() -> None:
    with pytest.raises(InvalidInputError, match="the driver of mysql is not installed"):
        SqlStore("mysql://host/db")


def open_with_others(path: str, barrier: Any) -> None:
    barrier.wait(60)
    SqlStore(path).close()


def test_processes_that_start_at_once_make_one_store(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nasplat.study", "nasplat.storage", "nasplat.testing.stored", "tests.plugins"])
    barrier = context.Barrier(4)
    processes = [context.Process(target=open_with_others, args=(str(tmp_path / "store.db"), barrier)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)
    with Reader(tmp_path / "store.db") as reader:
        assert reader.studies() == []
