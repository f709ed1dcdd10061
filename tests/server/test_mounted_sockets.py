"""Live clients of the API where it is mounted in somebody else's application, below a path, on somebody else's server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from websockets.exceptions import InvalidStatus

from camber.backend import Backend
from camber.functions import load_application
from camber.server import admin_key, create_app, create_site_app
from camber.settings import Settings
from tests.server.conftest import APPLICATION
from tests.wire.raw_client import RawClient, adding, number, raw_client, removing, timestamp


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mounted") / "data"


@pytest.fixture(scope="module")
def url(data: Path) -> Iterator[str]:
    """The address of the outer application."""
    with mounted(data) as url:
        yield url


@contextmanager
def mounted(data: Path) -> Iterator[str]:
    """A deployment, mounted in an application that plain uvicorn serves."""
    settings = Settings.from_env({}, dev=True, mutation_seconds=60, query_seconds=60)
    with closing(Backend.open(load_application(APPLICATION), data, settings=settings, create=True)) as backend:
        admin_key(data, create=True)
        routes = [Mount("/backend", create_app(backend)), Mount("/site", create_site_app(backend))]
        with served(Starlette(routes=routes)) as url:
            yield url


@contextmanager
def served(app: Starlette) -> Iterator[str]:
    config = uvicorn.Config(app, host="127.0.0.1", port=0, ws="websockets-sansio", log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            thread.join(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(60)
    assert not thread.is_alive()


@pytest.fixture
def client(url: str) -> Iterator[RawClient]:
    """A client that watches nothing yet."""
    with joined(url) as client:
        yield client


@contextmanager
def joined(url: str, **options: Any) -> Iterator[RawClient]:
    with raw_client(url, "/backend/api/sync", **options) as client:
        client.connect()
        yield client


def test_a_conversation(client: RawClient, url: str) -> None:
    client.modify(adding(0, "notes:texts"))
    client.hear_transition()
    before = client.values[0]

    client.mutation(0, "notes:add", text="mine")
    response, transition = client.hear_response(), client.hear_transition()
    assert number(transition["endVersion"]["ts"]) >= number(response["ts"])
    assert client.values[0] == [*before, "mine"]

    with joined(url) as other:
        other.mutation(0, "notes:add", text="another's")
        other.hear_response()
    client.hear_value(0, [*before, "mine", "another's"])

    client.modify(removing(0))
    assert client.hear_transition()["modifications"] == [{"type": "QueryRemoved", "queryId": 0}]


@pytest.mark.parametrize("path", ["/backend/api/sync", "/backend/api/1.48.0/sync"])
def test_both_forms_of_the_address_work(url: str, path: str) -> None:
    with raw_client(url, path) as client:
        client.connect()
        client.modify(adding(0, "notes:same", value=7))
        assert client.hear_transition()["modifications"][0]["value"] == 7


@pytest.mark.parametrize("path", ["/backend/api/query", "/backend/sync", "/site/api/sync", "/site/", "/api/sync"])
def test_there_is_no_socket_elsewhere(url: str, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused, raw_client(url, path):
        pass

    assert refused.value.response.status_code in {403, 404}


def test_the_operator_can_say_who_it_is(client: RawClient, data: Path) -> None:
    client.modify(adding(0, "notes:who"))
    client.hear_transition()
    client.say("Authenticate", baseVersion=0, tokenType="Admin", value=admin_key(data))

    client.hear_value(0, {"operator": True, "identity": None})


def test_a_wrong_key_is_an_auth_error_and_the_end(client: RawClient) -> None:
    client.say("Authenticate", baseVersion=0, tokenType="Admin", value="camber|00")

    assert client.hear()["type"] == "AuthError"
    assert client.hear_goodbye() == 1000


def test_what_breaks_the_rules_is_a_fatal_error_and_the_end(client: RawClient) -> None:
    client.say("ModifyQuerySet", baseVersion=5, newVersion=6, modifications=[])

    assert client.hear_fatal_error() == "Base version 5 passed up doesn't match the current version 0"


def test_binary_frames_are_the_end(client: RawClient) -> None:
    client.socket.send(json.dumps({"type": "Event"}).encode())

    assert client.hear_fatal_error() == "Messages are text, not binary"


def test_a_client_from_the_future_is_sent_away(url: str) -> None:
    with raw_client(url, "/backend/api/sync") as client:
        client.connect(maxObservedTimestamp=timestamp(2**63))

        assert client.hear_goodbye() == 1011


def test_a_client_that_vanishes_is_forgotten(url: str, client: RawClient) -> None:
    for _ in range(5):
        with joined(url) as gone:
            gone.modify(adding(0, "notes:texts"))
            gone.hear_transition()
            gone.socket.socket.close()

    client.mutation(0, "notes:add", text="still here")
    assert client.hear_response()["success"]


def test_a_client_that_does_not_read_gets_the_newest_state_and_no_backlog(tmp_path: Path) -> None:
    """And it is not listened to meanwhile, so that what it asks for does not pile up either."""
    size, writes, calls = 200_000, 70, 40
    with mounted(tmp_path / "data") as url, joined(url) as writer, joined(url, max_queue=1) as client:
        client.modify(adding(0, "notes:texts"))
        client.hear_transition()
        for request_id in range(writes):
            writer.mutation(request_id, "notes:add", text="x" * size)
            assert writer.hear_response()["success"]
            writer.hear_transition()
        for request_id in range(calls):
            client.mutation(request_id, "notes:add", text="")
        writer.mutation(writes, "notes:add", text="y")
        writer.hear_response()
        writer.hear_transition()
        assert writer.values == {}
        writer.modify(adding(0, "notes:texts"))
        held_back = writes + 1 + calls - len(writer.hear_transition()["modifications"][0]["value"])

        heard = responses = 0
        while len(client.values[0]) < writes + 1 + calls:
            kind = client.hear()["type"]
            heard += kind == "Transition"
            responses += kind == "MutationResponse"

    assert held_back > calls / 2
    assert heard - responses < writes / 2


def test_the_outer_server_can_stop_while_clients_are_there(tmp_path: Path) -> None:
    with ExitStack() as connections:
        with mounted(tmp_path / "data") as url:
            client = connections.enter_context(joined(url))
            client.modify(adding(0, "notes:texts"))
            client.hear_transition()

        assert client.hear_goodbye() in {1001, 1012}
