"""The WAL while callers read and write without a pause: it is started over, however many snapshots the readers have open."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path
from random import Random

from tests.crashes.campaign import Campaign
from tests.crashes.engines import CHECKPOINT_PAGES, EngineClient, opened

PAGE = 4096 + 24


def test_readers_that_come_all_the_time_do_not_make_the_wal_grow(tmp_path: Path) -> None:
    campaign = Campaign(12, Random(1))
    wal = tmp_path / "camber.sqlite3-wal"
    with closing(opened(tmp_path)) as backend:
        clients = [EngineClient(backend) for _ in campaign.workers]
        for thread in campaign.start(clients, threading.Event(), 100):
            thread.join()
        # From four times the pages at which a checkpoint is due, it waits for readers; one group may come on top of that.
        # Where one stands still, the wait is in vain: the next one comes at twice as many.
        assert wal.stat().st_size < 20 * CHECKPOINT_PAGES * PAGE
    assert not campaign.surprises
