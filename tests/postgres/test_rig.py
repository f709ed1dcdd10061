"""The rig itself: the PostgreSQL that tests kill, and the proxy that they strike with."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from tests.postgres.cluster import Cluster, Standby, StopMode
from tests.postgres.proxy import Connection, Proxy


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One that these tests may stop and kill."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def url(cluster: Cluster) -> str:
    url = cluster.new_database()
    cluster.sql("CREATE TABLE notes (text text)", url=url)
    return url


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[Proxy]:
    with Proxy(cluster.port) as proxy:
        yield proxy


def connect(url: str) -> psycopg.Connection:
    return psycopg.connect(url, connect_timeout=30)


def notes(cluster: Cluster, url: str) -> list[str]:
    return [text for (text,) in cluster.sql("SELECT text FROM notes ORDER BY text", url=url)]


# The cluster


@pytest.mark.parametrize("mode", ["smart", "fast", "immediate"])
def test_what_is_committed_is_there_after_every_kind_of_stop(cluster: Cluster, url: str, mode: StopMode) -> None:
    cluster.sql("INSERT INTO notes VALUES ('kept')", url=url)
    cluster.stop(mode)
    assert not cluster.runs
    cluster.start()
    assert notes(cluster, url) == ["kept"]


def test_a_kill_takes_every_process_and_loses_no_commit(cluster: Cluster, url: str) -> None:
    cluster.sql("INSERT INTO notes VALUES ('kept')", url=url)
    with connect(url) as connection:
        connection.execute("INSERT INTO notes VALUES ('lost')")
        command = ["ps", "-o", "stat=", "-p", str(connection.info.backend_pid)]
        cluster.kill()
        state = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True).stdout
        assert not state or state.startswith("Z")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        connection.close()
    cluster.start()
    assert notes(cluster, url) == ["kept"]


def test_databases_are_each_tests_own_and_sort_by_bytes(cluster: Cluster) -> None:
    one, other = cluster.new_database(), cluster.new_database()
    cluster.sql("CREATE TABLE notes (text text)", url=one)
    assert cluster.sql("SELECT to_regclass('notes')", url=other) == [(None,)]
    assert cluster.sql("SELECT 'a' > 'B', current_setting('server_encoding')", url=other) == [(True, "UTF8")]
    with connect(other):
        cluster.drop_database(other)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        cluster.sql("SELECT 1", url=other)


def test_a_server_that_can_not_start_is_reported_with_its_log() -> None:
    cluster = Cluster(settings={"shared_buffers": "nonsense"})
    try:
        with pytest.raises(RuntimeError, match="shared_buffers"):
            cluster.start()
    finally:
        cluster.close()
    assert not cluster.folder.exists()


def test_it_ends_with_a_test_process_that_is_killed() -> None:
    program = (
        "from tests.postgres.cluster import Cluster, _account, _fresh_data\n"
        "cluster = Cluster()\n"
        "cluster.start()\n"
        "print(cluster.port, cluster.folder, _fresh_data(cluster.programs, _account()).parent, flush=True)\n"
        "input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        port, *places = process.stdout.readline().split()
        folders = [Path(place) for place in places]
        assert [folder.is_dir() for folder in folders] == [True, True]
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while left := [folder for folder in folders if folder.exists()]:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.05)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres")


def test_each_test_is_given_an_empty_database(postgres: Cluster, postgres_url: str) -> None:
    assert postgres.sql(
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace", url=postgres_url
    ) == [(0,)]


def test_a_standby_follows_and_a_commit_waits_for_one_that_is_demanded() -> None:
    with ThreadPoolExecutor(1) as threads, Cluster() as primary:
        url = primary.new_database()
        primary.sql("CREATE TABLE notes (text text)", url=url)
        with Standby(primary) as standby:
            copied = standby.url(url.rpartition("/")[2])
            primary.sql("INSERT INTO notes VALUES ('a')", url=url)
            wait_for_notes(standby, copied, ["a"])

            standby.demand()
            standby.stop()
            asked = threads.submit(primary.sql, "INSERT INTO notes VALUES ('b')", url=url)
            with pytest.raises(TimeoutError):
                asked.result(0.5)
            standby.start()
            asked.result(60)
            wait_for_notes(standby, copied, ["a", "b"])


# The proxy


def test_the_proxy_forwards(cluster: Cluster, url: str, proxy: Proxy) -> None:
    with connect(proxy.url(url)) as connection:
        connection.execute("INSERT INTO notes SELECT 'note ' || n FROM generate_series(1, 5000) AS n")
        # Often enough for the client to prepare it, and more than one chunk of bytes.
        for _ in range(8):
            assert len(connection.execute("SELECT text FROM notes WHERE text <> %s", [""]).fetchall()) == 5000
        with connection.cursor().copy("COPY notes FROM STDIN") as copy:
            copy.write_row(["copied"])
    assert len(notes(cluster, url)) == 5001


def test_a_cut_connection_is_lost_and_the_next_is_served(url: str, proxy: Proxy) -> None:
    connection = connect(proxy.url(url))
    proxy.cut()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    connection.close()
    with connect(proxy.url(url)) as connection:
        connection.execute("SELECT 1")


def test_a_proxy_that_refuses_is_no_server(url: str, proxy: Proxy) -> None:
    proxy.refuse()
    with pytest.raises(psycopg.OperationalError):
        connect(proxy.url(url))
    proxy.refuse(False)
    connect(proxy.url(url)).close()


def test_a_stalled_connection_answers_when_it_is_resumed(url: str, proxy: Proxy) -> None:
    with connect(proxy.url(url)) as connection:
        proxy.stall()
        with pytest.raises(psycopg.OperationalError, match="timeout"):
            psycopg.connect(proxy.url(url), connect_timeout=2)
        answers: list[object] = []
        asking = threading.Thread(target=lambda: answers.append(connection.execute("SELECT 1").fetchone()))
        asking.start()
        asking.join(0.3)
        assert answers == []
        proxy.resume()
        asking.join(30)
        assert answers == [(1,)]


@pytest.mark.parametrize("direction", ["to server", "to client"])
def test_one_direction_can_be_stalled(cluster: Cluster, url: str, proxy: Proxy, direction: str) -> None:
    with connect(proxy.url(url)) as connection:
        connection.autocommit = True
        proxy.stall("to server" if direction == "to server" else "to client")
        asking = threading.Thread(target=connection.execute, args=["INSERT INTO notes VALUES ('here')"])
        asking.start()
        if direction == "to client":
            wait_for_notes(cluster, url, ["here"])
        asking.join(0.3)
        assert asking.is_alive()
        assert notes(cluster, url) == (["here"] if direction == "to client" else [])
        proxy.resume()
        asking.join(30)
        assert notes(cluster, url) == ["here"]


def test_a_server_that_dies_behind_a_stall_is_not_noticed(cluster: Cluster, url: str, proxy: Proxy) -> None:
    connection = connect(proxy.url(url))
    proxy.stall()
    cluster.kill()
    cluster.start()

    def ask() -> None:
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")

    asking = threading.Thread(target=ask)
    asking.start()
    asking.join(0.5)
    assert asking.is_alive()
    proxy.resume()
    asking.join(30)
    assert not asking.is_alive()
    connection.close()


def test_a_cut_before_commit_leaves_nothing(cluster: Cluster, url: str, proxy: Proxy) -> None:
    strike = proxy.before("COMMIT", Connection.cut)
    connection = connect(proxy.url(url))
    connection.execute("INSERT INTO notes VALUES ('lost')")
    with pytest.raises(psycopg.OperationalError):
        connection.commit()
    connection.close()
    assert strike.wait().is_cut
    assert notes(cluster, url) == []


def test_a_cut_after_commit_loses_only_the_answer(cluster: Cluster, url: str, proxy: Proxy) -> None:
    strike = proxy.after("COMMIT", Connection.cut)
    connection = connect(proxy.url(url))
    connection.execute("INSERT INTO notes VALUES ('kept')")
    with pytest.raises(psycopg.OperationalError):
        connection.commit()
    connection.close()
    assert strike.wait().is_cut
    assert notes(cluster, url) == ["kept"]


def test_the_end_that_is_left_hears_nothing_of_a_cut(cluster: Cluster, url: str, proxy: Proxy) -> None:
    proxy.before("COMMIT", lambda connection: connection.cut("client"))
    connection = connect(proxy.url(url))
    connection.execute("SELECT pg_advisory_xact_lock(1)")
    with pytest.raises(psycopg.OperationalError):
        connection.commit()
    connection.close()
    # The server still holds the lock of a client that has gone.
    with connect(url) as other:
        assert other.execute("SELECT pg_try_advisory_lock(1)").fetchone() == (False,)
        proxy.close()
        other.execute("SET statement_timeout = '30s'")
        other.execute("SELECT pg_advisory_lock(1)")


def test_the_server_can_be_killed_at_a_statement(cluster: Cluster, url: str, proxy: Proxy) -> None:
    def restart(_: Connection) -> None:
        cluster.kill()
        cluster.start()

    strike = proxy.after("COMMIT", restart)
    connection = connect(proxy.url(url))
    connection.execute("INSERT INTO notes VALUES ('kept')")
    # The commit was over, so its answer comes; the connection is gone.
    connection.commit()
    strike.wait()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    connection.close()
    assert notes(cluster, url) == ["kept"]


def test_a_strike_sees_prepared_statements_and_waits_for_the_one_meant(
    cluster: Cluster, url: str, proxy: Proxy
) -> None:
    seen: list[int] = []
    strike = proxy.after("INSERT INTO notes", lambda _: seen.append(len(notes(cluster, url))), skip=9, times=2)
    with connect(proxy.url(url)) as connection:
        connection.autocommit = True
        for n in range(20):
            connection.execute("INSERT INTO notes VALUES (%s)", [f"note {n}"])
    strike.wait()
    strike.wait()
    assert seen == [10, 11]
    with pytest.raises(TimeoutError):
        strike.wait(0.1)


def test_a_strike_at_an_answer_keeps_to_its_statement_in_a_pipeline(cluster: Cluster, url: str, proxy: Proxy) -> None:
    seen: list[str] = []
    for text in ("'one'", "'two'", "nowhere", "'three'", "'four'"):
        proxy.after(text, lambda _, text=text: seen.append(text))
    with connect(proxy.url(url)) as connection:
        connection.autocommit = True
        with pytest.raises(psycopg.errors.UndefinedTable), connection.pipeline() as pipeline:  # noqa: PT012
            connection.execute("SELECT 'one'")
            connection.execute("SELECT 'two'")
            connection.execute("SELECT 1 FROM nowhere")
            connection.execute("SELECT 'three'")
            pipeline.sync()
        connection.execute("SELECT 'four'")
    # The server passes over what follows an error.
    assert seen == ["'one'", "'two'", "nowhere", "'four'"]


def wait_for_notes(cluster: Cluster, url: str, expected: list[str]) -> None:
    deadline = time.monotonic() + 30
    while notes(cluster, url) != expected:
        assert time.monotonic() < deadline
        time.sleep(0.02)
