"""What a client can send, how long it can take, and how many can do so at once."""

from __future__ import annotations

import asyncio

import pytest

from tests.server.asking import Client, Reply, ask, call
from tests.server.conftest import Opening

KIB = 1024


@pytest.fixture(scope="module")
def small(opened: Opening) -> Client:
    """A client of a deployment with small bounds."""
    return opened(
        request_body_bytes=64 * KIB,
        request_body_seconds=0.4,
        buffered_body_bytes=1024 * KIB,
        header_count=20,
        concurrent_requests=2,
    )


def test_a_body_of_the_largest_size_is_read(small: Client) -> None:
    body = b" " * (64 * KIB - 60) + b'{"path":"notes:same","args":{"value":1},"format":"json"}'
    assert small.post("/api/query", body, headers={"Content-Length": str(len(body))}).json["value"] == 1
    assert small.ask("POST", "/api/query", parts=[body[:9], body[9:]]).json["value"] == 1


@pytest.mark.parametrize("length", [str(64 * KIB + 1), "9" * 5_000, "-1", "x"])
def test_a_declared_length_that_is_too_large_is_refused_unread(small: Client, length: str) -> None:
    answered = small.post("/api/query", call("notes:texts"), headers={"Content-Length": length})
    assert answered.status == 413
    assert answered.headers["content-type"].startswith("text/plain")
    assert answered.headers["connection"] == "close"


@pytest.mark.parametrize("parts", [[b"x" * (64 * KIB + 1)], [b"x" * KIB] * 65])
def test_a_body_that_turns_out_too_large_is_refused(small: Client, parts: list[bytes]) -> None:
    answered = small.ask("POST", "/api/query", parts=parts, headers={"Origin": "http://page"})
    assert answered.status == 413
    assert answered.headers["access-control-allow-origin"] == "http://page"


def test_a_body_that_takes_too_long_is_given_up(small: Client) -> None:
    answered = small.ask("POST", "/api/query", parts=[b"{"], wait=lambda: asyncio.sleep(30))
    assert (answered.status, answered.code) == (408, "RequestTimeout")


def test_others_are_answered_while_somebody_dawdles(small: Client) -> None:
    async def run() -> tuple[Reply, Reply]:
        slow = asyncio.create_task(ask(small.app, "POST", "/api/query", parts=[b"{"], wait=lambda: asyncio.sleep(30)))
        await asyncio.sleep(0.05)
        quick = await ask(small.app, "GET", "/api/query", query="path=notes:texts")
        return await slow, quick

    slow, quick = small.runner.run(run())
    assert (slow.status, quick.status) == (408, 200)


def test_a_client_that_hangs_up_before_its_body_is_complete_gets_no_answer(small: Client) -> None:
    assert small.ask("POST", "/api/query", parts=[b"{"], wait=lambda: asyncio.sleep(0)).status == 0
    assert small.post("/api/query", call("notes:texts")).status == 200


def test_all_bodies_together_are_bounded(small: Client) -> None:
    async def run() -> list[int]:
        # 20 unfinished bodies of 60 KiB are more than 1 MiB.
        asking = [
            ask(small.app, "POST", "/api/query", parts=[b" " * 30 * KIB] * 2, wait=lambda: asyncio.sleep(30))
            for _ in range(20)
        ]
        return [answered.status for answered in await asyncio.gather(*asking)]

    statuses = small.runner.run(run())
    assert set(statuses) == {503, 408}
    body = b" " * 30 * KIB
    assert small.ask("POST", "/api/query", parts=[body, body, b"{}"]).code == "BadJsonBody"


def test_too_many_headers_are_refused(small: Client) -> None:
    answered = small.post("/api/query", call("notes:texts"), headers={f"X-{number}": "" for number in range(21)})
    assert (answered.status, answered.code) == (431, "TooManyHeaders")


def test_too_many_at_once_are_told_to_come_back(small: Client) -> None:
    async def run() -> list[Reply]:
        body = b'{"path":"notes:later","args":{"seconds":0.2}}'
        return await asyncio.gather(*(ask(small.app, "POST", "/api/action", parts=[body]) for _ in range(4)))

    answered = small.runner.run(run())
    refused = [reply for reply in answered if reply.status == 503]
    assert sorted(reply.status for reply in answered) == [200, 200, 503, 503]
    assert {(reply.code, reply.headers["retry-after"]) for reply in refused} == {("TooManyConcurrentRequests", "1")}
    assert small.query("notes:texts") == []


def test_a_mutation_goes_on_when_its_client_hangs_up(client: Client) -> None:
    async def run() -> None:
        body = b'{"path":"notes:add","args":{"text":"left alone"}}'
        await ask(client.app, "POST", "/api/mutation", parts=[body])

    client.runner.run(run())
    assert "left alone" in client.query("notes:texts")


def test_a_call_that_is_cut_short_is_not_called_failed(client: Client) -> None:
    async def run(kind: str, path: str) -> Reply:
        body = b'{"path":"' + path.encode() + b'","args":{"seconds":60}}'
        asking = asyncio.create_task(ask(client.app, "POST", f"/api/{kind}", parts=[body]))
        await asyncio.sleep(0.1)
        asking.cancel()
        return await asking

    assert client.runner.run(run("action", "notes:later")).code == "CommitUnknown"


def test_an_error_nobody_foresaw_shows_no_details(opened: Opening, caplog: pytest.LogCaptureFixture) -> None:
    client = opened()
    client.backend.database.storage.close()

    answered = client.post("/api/mutation", call("notes:add", {"text": "a"}), headers={"Convex-Request-Id": "find-me"})

    assert answered.status in {500, 503}
    assert "Traceback" not in answered.body.decode()
