"""How the server logs."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from camber.server import configure_logging
from camber.settings import Settings

KEY = "camber|01" + "ab" * 32

log = logging.getLogger("camber.test")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def logged_to(out: io.StringIO, **settings: object) -> io.StringIO:
    configure_logging(Settings.from_env({}, **settings), out)
    return out


def test_events_are_json_lines_with_their_fields() -> None:
    out = logged_to(io.StringIO())
    log.warning("something %s", "happened", extra={"request_id": "abc"})
    event = json.loads(out.getvalue())
    assert (event["event"], event["level"], event["logger"], event["request_id"]) == (
        "something happened",
        "warning",
        "camber.test",
        "abc",
    )
    assert event["timestamp"].endswith("Z")


@pytest.mark.parametrize(("stream", "chosen"), [(Terminal, "auto"), (io.StringIO, "human")])
def test_on_a_terminal_they_are_for_people(stream: type[io.StringIO], chosen: str) -> None:
    out = logged_to(stream(), log_format=chosen)
    log.info("something happened", extra={"path": "/x"})
    assert "something happened" in out.getvalue()
    assert not out.getvalue().startswith("{")


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_a_traceback_shows_no_variables(stream: type[io.StringIO]) -> None:
    out = logged_to(stream())
    _fail("a secret in a variable")
    assert "ValueError" in out.getvalue()
    assert "a secret in a variable" not in out.getvalue()


def _fail(held: str) -> None:
    try:
        int(held[:1])
    except ValueError:
        log.exception("failed")


def test_secrets_are_removed_wherever_they_are() -> None:
    out = logged_to(io.StringIO())
    fields = {"Authorization": "Basic x", "about": {"token": "t0ken", "list": [KEY]}}
    log.error("with %s and Bearer eyJ.abc.def", KEY, extra=fields)
    text = f"Convex {KEY}:e30="
    try:
        raise ValueError(text)
    except ValueError:
        log.exception("failed")
    for secret in (KEY[9:], "t0ken", "eyJ", "Basic x", "e30="):
        assert secret not in out.getvalue()


def test_less_than_the_level_is_not_logged() -> None:
    out = logged_to(io.StringIO(), log_level="error")
    log.warning("unheard")
    assert out.getvalue() == ""
