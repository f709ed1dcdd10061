"""A whole backend on a disk that forgets, tears, reorders, fills up and fails, with callers at work.

`CAMBER_TORTURE_ROUNDS` says how many cases are tried, `CAMBER_TORTURE_SEED` where the choices begin.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import get_args

import pytest

from camber import MutationCtx, define_schema
from camber.backend import Backend
from camber.database import committer
from camber.errors import CommitUnknownError, DiskFullError, RequestError, StorageError
from camber.functions import Application
from camber.identity import OPERATOR
from tests.crashes.campaign import Campaign
from tests.crashes.consistency import contents_of
from tests.crashes.engines import APPLICATION, EngineClient, opened
from tests.crashes.ledger import Answer, Register
from tests.storage.sqlite.faulty_disk import FaultyDisk, Loss

ROUNDS = int(os.environ.get("CAMBER_TORTURE_ROUNDS", "4"))
SEED = int(os.environ.get("CAMBER_TORTURE_SEED", "1"))
CALLERS = 4
PATIENCE = 60.0
LOSSES: tuple[Loss, ...] = get_args(Loss)

many_cases = pytest.mark.parametrize("choices", range(SEED, SEED + ROUNDS))


@pytest.fixture(scope="module")
def new_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The data file of a campaign that has not begun."""
    folder = tmp_path_factory.mktemp("new")
    opened(folder).close()
    return (folder / "camber.sqlite3").read_bytes()


@pytest.fixture
def folder(tmp_path: Path, new_file: bytes) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "camber.sqlite3").write_bytes(new_file)
    return folder


@pytest.fixture
def new_disk() -> Iterator[Callable[[], FaultyDisk]]:
    """Makes disks, which are gone at the end."""
    disks: list[FaultyDisk] = []

    def make() -> FaultyDisk:
        disks.append(FaultyDisk())
        return disks[-1]

    yield make
    for disk in disks:
        disk.unregister()


NewDisk = Callable[[], FaultyDisk]


def work(backend: Backend, campaign: Campaign, calls: int) -> None:
    """Let every caller make so many calls, at the same time."""
    clients = [EngineClient(backend) for _ in campaign.workers]
    for thread in campaign.start(clients, threading.Event(), calls):
        thread.join()


@pytest.mark.torture
@many_cases
def test_a_crash_at_any_point_loses_no_acknowledged_write(folder: Path, new_disk: NewDisk, choices: int) -> None:
    """Three crashes in a row; what the first left behind is what the next one finds, recovery included."""
    random = Random(choices)
    campaign = Campaign(CALLERS, random)
    for number in range(3):
        disk = new_disk()
        # Now and then so soon that it dies while it recovers what the crash before it left.
        disk.die_after(random.choice([random.randrange(10), random.randrange(400)]))
        with suppress(StorageError):
            with closing(opened(folder, disk)) as backend:
                work(backend, campaign, calls=40)
                survived = folder.with_name(f"survived-{number}")
                disk.crash(survived, random.choice(LOSSES), random)
            folder = survived
        campaign.check(contents_of(folder))
        assert not campaign.surprises


@pytest.mark.torture
@many_cases
def test_an_error_of_the_disk_refuses_a_write_or_leaves_it_in_doubt(
    folder: Path, new_disk: NewDisk, choices: int
) -> None:
    random, disk = Random(choices), new_disk()
    campaign = Campaign(CALLERS, random)
    with closing(opened(folder, disk)) as backend:
        work(backend, campaign, calls=5)
        disk.fail_after(random.randrange(150))
        work(backend, campaign, calls=30)
        assert all(surprise.endswith("a write failed") for surprise in campaign.surprises)
        disk.crash(folder.with_name("survived"), random.choice(LOSSES), random)

    campaign.check(contents_of(folder.with_name("survived")))


@pytest.mark.torture
@many_cases
def test_a_full_disk_refuses_writes_until_there_is_room(folder: Path, new_disk: NewDisk, choices: int) -> None:
    random, disk = Random(choices), new_disk()
    campaign = Campaign(CALLERS, random)
    with closing(opened(folder, disk)) as backend:
        disk.capacity = disk.used() + random.randrange(150_000)
        work(backend, campaign, calls=40)
        assert all("DiskFullError" in surprise for surprise in campaign.surprises)
        assert backend.ready() is None

        disk.capacity = None
        refused = len(campaign.surprises)
        work(backend, campaign, calls=20)
        assert len(campaign.surprises) == refused
        disk.crash(folder.with_name("survived"), random.choice(LOSSES), random)

    campaign.check(contents_of(folder.with_name("survived")))


@pytest.mark.torture
@many_cases
def test_a_crash_while_the_tables_are_changed_leaves_the_old_ones_or_the_new_ones(
    folder: Path, new_disk: NewDisk, choices: int
) -> None:
    random, disk = Random(choices), new_disk()
    campaign = Campaign(CALLERS, random)
    with closing(opened(folder)) as backend:
        work(backend, campaign, calls=40)
    disk.die_after(random.randrange(60))
    with suppress(StorageError), closing(opened(folder, disk, application=with_other_indexes(APPLICATION))):
        pass
    survived = folder.with_name("survived")
    disk.crash(survived, random.choice(LOSSES), random)

    campaign.check(contents_of(survived))
    with closing(opened(survived)) as backend:
        work(backend, campaign, calls=5)
    campaign.check(contents_of(survived))
    assert not campaign.surprises


def with_other_indexes(application: Application) -> Application:
    """The application with the indexes of backers as somebody else would choose them."""
    tables = dict(application.schema.tables)
    backers = tables["crowdfunding_backers"]
    kept = tuple(index for index in backers.indexes if index.name not in {"by_tier", "by_usedAt"})
    tables["crowdfunding_backers"] = (
        type(backers)(backers.name, backers.validator, kept)
        .index("by_accessCode", ["accessCode"], unique=True)
        .index("by_usedAt", ["usedAt", "tier"])
    )
    return Application(application.name, None, define_schema(*tables.values()), {})


@pytest.mark.torture
@many_cases
def test_a_crash_while_tables_come_into_being_leaves_each_whole_or_not_there(
    tmp_path: Path, new_disk: NewDisk, choices: int
) -> None:
    """Without a schema, the first document of a table makes the table."""
    plain = Application("plain", None, define_schema(), {})
    folder, survived = tmp_path / "data", tmp_path / "survived"
    opened(folder, application=plain).close()
    random, disk = Random(choices), new_disk()
    there = {f"table{number}": Register(False) for number in range(40)}
    disk.die_after(random.randrange(300))
    with suppress(StorageError), closing(opened(folder, disk, application=plain)) as backend:
        for name, register in there.items():
            try:
                backend.transact(partial(insert, name), [])
            except CommitUnknownError:
                register.wrote(True, Answer("unknown"))
                break
            register.wrote(True, Answer("done"))
    disk.crash(survived, random.choice(LOSSES), random)

    contents = contents_of(survived)
    for name, register in there.items():
        # The table is made by a commit of its own: it may be there without its document.
        register.found(bool(contents.tables.get(name)), name)


def insert(table: str, ctx: MutationCtx) -> None:
    ctx.db.insert(table, {"text": "x" * 1000})


def add_backer(backend: Backend, username: str) -> object:
    args = {"username": username, "accessCode": f"code of {username}", "tier": "Gold"}
    outcome = backend.run_sync("crowdfundingBackers:addBacker", json.dumps(args).encode(), OPERATOR)
    assert outcome.value is not None, outcome
    return json.loads(outcome.value)["success"]


def usernames(folder: Path) -> list[str]:
    return [backer["username"] for backer in contents_of(folder)["crowdfunding_backers"]]


def set_tier(backend: Backend, name: str) -> None:
    backend.run_sync("tiers:set", json.dumps({"name": name, "percentOff": 10}).encode(), OPERATOR)


def tiers(backend: Backend) -> object:
    return json.loads(backend.run_sync("tiers:list", b"{}", OPERATOR).value or b"null")


def state(backend: Backend) -> object:
    return json.loads(backend.run_sync("appState:get", b"{}", OPERATOR).value or b"null")


def test_the_disk_does_lose_what_nobody_waited_for(folder: Path, new_disk: NewDisk) -> None:
    """The tests above would pass on a disk that never forgets, or where nothing is ever synced late: this one holds it to it."""
    disk = new_disk()
    with closing(opened(folder, disk)) as backend:
        add_backer(backend, "ada")
        disk.fail_next_sync()
        with pytest.raises(CommitUnknownError):
            add_backer(backend, "bob")
        disk.crash(folder.with_name("forgotten"), "forget", Random(1))

    assert usernames(folder.with_name("forgotten")) == ["ada"]


def test_a_full_disk_is_said_to_be_full_and_reads_go_on(folder: Path, new_disk: NewDisk) -> None:
    disk = new_disk()
    with closing(opened(folder, disk)) as backend:
        disk.capacity = disk.used()
        with pytest.raises(DiskFullError, match="nothing was written: free some space and try again"):
            add_backer(backend, "ada")
        assert state(backend) == {"crowdfundingActive": False}

        disk.capacity = None
        assert add_backer(backend, "ada") is True


def test_after_a_commit_in_doubt_nothing_is_written_any_more(folder: Path, new_disk: NewDisk) -> None:
    disk = new_disk()
    with closing(opened(folder, disk)) as backend:
        unhealthy = threading.Event()
        backend.on_unhealthy = unhealthy.set
        state(backend)
        disk.fail_next_sync()

        with pytest.raises(CommitUnknownError, match="whether it is stored is not known"):
            set_tier(backend, "Gold")

        assert unhealthy.wait(PATIENCE)
        assert (backend.ready() or "").startswith("the last commit failed: the disk failed")
        with pytest.raises(RequestError, match="Nothing can be written until the server has restarted") as refused:
            add_backer(backend, "bob")
        assert refused.value.status == 503
        assert state(backend) == {"crowdfundingActive": False}  # a result that was kept and is still good
        with suppress(StorageError):  # of the state before it, or not at all
            assert tiers(backend) == []

    with closing(opened(folder)) as backend:
        assert add_backer(backend, "bob") is True


def test_calls_that_wait_behind_a_commit_in_doubt_are_refused_and_not_left_alone(
    folder: Path, new_disk: NewDisk
) -> None:
    disk = new_disk()
    with closing(opened(folder, disk, checkpoint_pages=4000)) as backend:
        campaign = Campaign(16, Random(SEED))
        stop = threading.Event()
        threads = campaign.start([EngineClient(backend) for _ in campaign.workers], stop)
        time.sleep(0.2)
        disk.fail_next_sync()
        for thread in threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in threads)
        assert not campaign.surprises
        disk.crash(folder.with_name("survived"), "tear", Random(SEED))

    campaign.check(contents_of(folder.with_name("survived")))


def test_a_commit_in_doubt_while_the_log_is_shortened_is_noticed_too(
    folder: Path, new_disk: NewDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It belongs to no call, so no caller would find out."""
    monkeypatch.setattr(committer, "COMMITS_KEPT_SECONDS", 0.2)
    disk = new_disk()
    with closing(opened(folder, disk, checkpoint_pages=4000)) as backend:
        unhealthy = threading.Event()
        backend.on_unhealthy = unhealthy.set
        add_backer(backend, "ada")
        time.sleep(0.3)
        backend.database.feed.on_commit(lambda _: disk.fail_next_sync())  # the next one is that of the log

        assert add_backer(backend, "bob") is True

        assert unhealthy.wait(PATIENCE)
        assert backend.ready() is not None
        disk.crash(folder.with_name("survived"), "forget", Random(1))

    assert usernames(folder.with_name("survived")) == ["ada", "bob"]


def test_a_change_of_the_schema_that_finds_no_room_leaves_the_old_one_serving(folder: Path, new_disk: NewDisk) -> None:
    disk = new_disk()
    with closing(opened(folder, disk)) as backend:
        add_backer(backend, "ada")
        disk.capacity = disk.used()
        with pytest.raises(DiskFullError):
            backend.reload_sync(with_other_indexes(APPLICATION))
        assert backend.ready() is None

        disk.capacity = None
        assert add_backer(backend, "ada") is False
        assert add_backer(backend, "bob") is True
        backend.reload_sync(with_other_indexes(APPLICATION))
        backend.reload_sync(APPLICATION)
        assert add_backer(backend, "bob") is False

    assert usernames_in(disk, folder) == ["ada", "bob"]


def test_a_change_of_the_schema_in_doubt_is_noticed(folder: Path, new_disk: NewDisk) -> None:
    disk = new_disk()
    with closing(opened(folder, disk)) as backend:
        unhealthy = threading.Event()
        backend.on_unhealthy = unhealthy.set
        add_backer(backend, "ada")
        disk.fail_next_sync()

        with pytest.raises(CommitUnknownError):
            backend.reload_sync(with_other_indexes(APPLICATION))

        assert unhealthy.wait(PATIENCE)
        assert backend.ready() is not None
        with pytest.raises(RequestError):
            add_backer(backend, "bob")

    assert usernames_in(disk, folder) == ["ada"]


def usernames_in(disk: FaultyDisk, folder: Path) -> list[str]:
    """The backers on a disk whose power is cut now."""
    survived = folder.with_name("after-power-cut")
    disk.crash(survived, "forget", Random(1))
    return usernames(survived)
