"""The reference of the HTTP API lists what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.server.asking import Client

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "reference" / "http.md").read_text()
ROUTE = re.compile(r"`(GET|POST) (/[^`?<]*)")


def codes() -> list[str]:
    """Every short code that the server, the functions or the backend answer a request with."""
    sources = [path for room in ("server", "functions") for path in (REPOSITORY / "src" / "camber" / room).glob("*.py")]
    text = "".join(path.read_text() for path in [*sources, REPOSITORY / "src" / "camber" / "backend.py"])
    found = re.findall(r'(?:RequestError|error_answer)\(\s*\d{3},\s*"(\w+)"|_busy\(\s*"(\w+)"', text)
    return sorted({name for pair in found for name in pair if name})


@pytest.mark.parametrize("code", codes())
def test_every_code_is_listed(code: str) -> None:
    assert f"`{code}`" in PAGE


def test_every_path_that_is_listed_is_there(client: Client) -> None:
    listed = ROUTE.findall(PAGE)
    assert len(listed) >= 18
    for method, path in listed:
        answered = client.ask(method, path + "notes/texts" if path.endswith("run/") else path)
        assert answered.status not in {404, 405}, (method, path)


def test_every_example_of_an_answer_is_one(client: Client) -> None:
    assert '{"status": "success", "value": 5.0, "logLines": []}' in PAGE
    assert client.post("/api/query", {"path": "notes:same", "args": {"value": 5}}).json == {
        "status": "success",
        "value": 5.0,
        "logLines": [],
    }
