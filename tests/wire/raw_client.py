"""A client of the sync protocol that adds nothing to it: what is said is said literally, what is heard is held to the rules."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

SECONDS = 60.0
"""How long to wait for what must come."""

Message = dict[str, Any]

START: Message = {"querySet": 0, "identity": 0, "ts": "AAAAAAAAAAA="}


class RawClient:
    """One connection. Each message that is heard is checked for what every client relies on (protocol 5.5, 5.6)."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.session_id = str(uuid4())
        self.version = START
        """What the last transition ended with."""
        self.values: dict[int, Any] = {}
        """What each query showed last: its value, or the message that told of its failure."""
        self._query_set = 0

    # Saying

    def say(self, kind: str, **fields: object) -> None:
        self.socket.send(json.dumps({"type": kind, **fields}))

    def connect(self, session_id: str | None = None, **fields: object) -> None:
        """Say what every client says first."""
        self.session_id = session_id or self.session_id
        first = {"connectionCount": 0, "lastCloseReason": "InitialConnect", "clientTs": 0}
        self.say("Connect", sessionId=self.session_id, **first | fields)

    def modify(self, *modifications: Mapping[str, object]) -> None:
        """Change the query set, from the version that it has."""
        self._query_set += 1
        self.say(
            "ModifyQuerySet",
            baseVersion=self._query_set - 1,
            newVersion=self._query_set,
            modifications=list(modifications),
        )

    def mutation(self, request_id: int, path: str, **args: object) -> None:
        self.say("Mutation", requestId=request_id, udfPath=path, args=[args])

    def action(self, request_id: int, path: str, **args: object) -> None:
        self.say("Action", requestId=request_id, udfPath=path, args=[args])

    # Hearing

    def hear(self, seconds: float = SECONDS) -> Message:
        """The next message, whatever it is."""
        text = self.socket.recv(timeout=seconds)
        assert isinstance(text, str), "messages are text"
        message = json.loads(text)
        _CHECKS[message["type"]](self, message)
        return message

    def hear_transition(self) -> Message:
        """The next message, which must be a transition (signs of life aside)."""
        return self._hear("Transition")

    def hear_response(self) -> Message:
        """The next message, which must be the answer to a mutation or an action."""
        return self._hear("MutationResponse", "ActionResponse")

    def hear_value(self, query_id: int, value: object) -> None:
        """Take in what comes until a query shows this."""
        while self.values.get(query_id, ...) != value:
            self.hear()

    def hear_goodbye(self) -> int:
        """The end of the connection, with nothing before it; returns the code."""
        with pytest.raises(ConnectionClosed) as closed:
            self.hear()
        assert closed.value.rcvd is not None, "the connection was dropped without a word"
        return closed.value.rcvd.code

    def hear_fatal_error(self) -> str:
        """The error that ends the conversation, and the end; returns its text."""
        while (message := self.hear())["type"] != "FatalError":
            assert message["type"] == "Transition", message
        assert self.hear_goodbye() in {1000, 1002, 1003, 1008}
        return message["error"]

    def _hear(self, *kinds: str) -> Message:
        while (message := self.hear())["type"] == "Ping":
            pass
        assert message["type"] in kinds, message
        return message

    # What must be true of all that is heard

    def _check_transition(self, message: Message) -> None:
        assert message["startVersion"] == self.version, "the chain of versions is broken"
        end = message["endVersion"]
        assert end.keys() == START.keys()
        assert all(type(end[name]) is int for name in ("querySet", "identity"))
        assert number(end["ts"]) >= number(self.version["ts"]), "time went back"
        for name in ("serverTs", "clientClockSkew"):
            assert message.get(name) is None or type(message[name]) is int
        self.version = end
        for modification in message["modifications"]:
            self._take(modification)

    def _take(self, modification: Message) -> None:
        match modification["type"]:
            case "QueryUpdated":
                self.values[modification["queryId"]] = modification["value"]
            case "QueryFailed":
                assert isinstance(modification["errorMessage"], str)
                self.values[modification["queryId"]] = modification["errorMessage"]
            case kind:
                assert kind == "QueryRemoved"
                self.values.pop(modification["queryId"], None)
                return
        _check_lines(modification)
        assert modification.get("journal") is None or isinstance(modification["journal"], str)

    def _check_response(self, message: Message) -> None:
        assert type(message["requestId"]) is int
        assert type(message["success"]) is bool
        _check_lines(message)
        if message["success"]:
            assert "errorData" not in message
        else:
            assert isinstance(message["result"], str)
        if message["type"] == "MutationResponse":
            assert isinstance(message["ts"], str) if message["success"] else message["ts"] is None

    def _check_text(self, message: Message) -> None:
        assert isinstance(message["error"], str)

    def _check_nothing(self, message: Message) -> None:
        pass


_CHECKS = {
    "Transition": RawClient._check_transition,
    "MutationResponse": RawClient._check_response,
    "ActionResponse": RawClient._check_response,
    "AuthError": RawClient._check_text,
    "FatalError": RawClient._check_text,
    "Ping": RawClient._check_nothing,
}


def _check_lines(message: Message) -> None:
    assert all(isinstance(line, str) for line in message["logLines"])


def adding(query_id: int, path: str, journal: str | None = None, **args: object) -> Message:
    """The modification that watches a query."""
    modification = {"type": "Add", "queryId": query_id, "udfPath": path, "args": [args]}
    return modification if journal is None else {**modification, "journal": journal}


def removing(query_id: int) -> Message:
    """The modification that watches it no longer."""
    return {"type": "Remove", "queryId": query_id}


def number(timestamp: str) -> int:
    """A timestamp as the number it is."""
    decoded = b64decode(timestamp, validate=True)
    assert len(decoded) == 8
    return int.from_bytes(decoded, "little")


def timestamp(number: int) -> str:
    """A number as a timestamp."""
    return b64encode(number.to_bytes(8, "little")).decode()


@contextmanager
def raw_client(url: str, path: str = "/api/sync", **options: Any) -> Iterator[RawClient]:
    """A connection to the server at this address, over which nothing is said yet; closed when the block is left."""
    address = url.replace("http", "ws", 1) + path
    # Without a bound on what waits to be heard: behind it the server's goodbye would wait too.
    unbounded = {"compression": None, "max_size": None, "max_queue": None}
    with connect(address, open_timeout=SECONDS, **unbounded | options) as socket:
        yield RawClient(socket)
