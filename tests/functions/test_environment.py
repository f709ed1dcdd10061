"""Environment variables of a deployment: who may set them, and what their names and values may be (protocol 6.4)."""

from __future__ import annotations

from typing import Any

import pytest

from camber.errors import RequestError
from camber.testing import Backend
from tests.functions.conftest import Serve
from tests.functions.deployments import ANONYMOUS, OPERATOR, call, message, somebody

UPDATE = "_system/camber/environment:update"
LIST = "_system/cli/queryEnvironmentVariables"


@pytest.fixture
def backend(serve: Serve) -> Backend:
    return serve({})


def change(backend: Backend, *changes: dict[str, Any]) -> None:
    backend.run(UPDATE, {"changes": list(changes)})


def variables(backend: Backend) -> dict[str, str]:
    return {found["name"]: found["value"] for found in backend.run(LIST)}


def refused(backend: Backend, *changes: dict[str, Any]) -> RequestError:
    before = variables(backend)
    with pytest.raises(RequestError) as raised:
        change(backend, *changes)
    assert raised.value.status == 400
    assert variables(backend) == before
    return raised.value


def test_variables_are_set_changed_and_removed(backend: Backend) -> None:
    change(backend, {"name": "A", "value": "1"}, {"name": "B", "value": "2"})
    change(backend, {"name": "A", "value": "3"}, {"name": "C"}, {"name": "B", "value": None})

    assert variables(backend) == {"A": "3"}
    assert backend.run(f"{LIST}:get", {"name": "A"}) == {"name": "A", "value": "3"}
    assert backend.run(f"{LIST}:get", {"name": "B"}) is None


def test_they_are_listed_by_name_as_documents(backend: Backend) -> None:
    change(backend, *({"name": name, "value": ""} for name in ("b", "_z", "A")))

    listed = backend.run(LIST)
    assert [found["name"] for found in listed] == ["A", "_z", "b"]
    assert set(listed[0]) == {"_id", "_creationTime", "name", "value"}


@pytest.mark.parametrize("name", ["A", "_a1", "__", "a" * 256])
def test_names_that_are_fine(backend: Backend, name: str) -> None:
    change(backend, {"name": name, "value": "x"})
    assert variables(backend) == {name: "x"}


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "Ä", "A\n", "A=B"])
def test_names_that_are_none_are_refused(backend: Backend, name: str) -> None:
    assert refused(backend, {"name": name, "value": "x"}).short_code == "InvalidEnvVarName"


def test_a_name_above_256_letters_is_refused(backend: Backend) -> None:
    assert "longer than 256" in str(refused(backend, {"name": "a" * 257, "value": "x"}))


@pytest.mark.parametrize("name", ["CONVEX_CLOUD_URL", "CONVEX_SITE_URL"])
@pytest.mark.parametrize("value", ["x", None])
def test_the_deployments_own_can_not_be_changed(backend: Backend, name: str, value: str | None) -> None:
    assert refused(backend, {"name": name, "value": value}).short_code == "EnvVarNameReserved"


def test_a_value_of_8_kib_is_fine_and_more_is_refused(backend: Backend) -> None:
    change(backend, {"name": "A", "value": "ä" * 4096})
    refusal = refused(backend, {"name": "B", "value": "ä" * 4096 + "x"})

    assert refusal.short_code == "EnvVarTooLarge"
    assert "B is larger than 8192 bytes" in str(refusal)


def test_the_changes_are_made_together_or_not_at_all(backend: Backend) -> None:
    refused(backend, {"name": "A", "value": "1"}, {"name": "2B", "value": "2"})


def test_there_are_512_at_most(backend: Backend) -> None:
    change(backend, *({"name": f"N{number}", "value": ""} for number in range(512)))

    assert refused(backend, {"name": "MORE", "value": ""}).short_code == "TooManyEnvVars"
    change(backend, {"name": "N0", "value": "changed"})
    change(backend, {"name": "MORE", "value": ""}, {"name": "N1"})
    assert len(variables(backend)) == 512


def test_a_secret_is_not_shown_in_a_refusal(backend: Backend) -> None:
    assert "hunter2" not in str(refused(backend, {"name": "A", "value": "hunter2" * 2000}))


def test_only_the_operator_reaches_them(backend: Backend) -> None:
    for caller in (ANONYMOUS, somebody("ann")):
        for path, kind in ((UPDATE, "mutation"), (LIST, "query"), (f"{LIST}:get", "query")):
            told = message(call(backend, path, {"changes": []} if path == UPDATE else {}, by=caller, kind=kind))
            assert told.startswith("Could not find public function for '_system/")
    assert call(backend, UPDATE, {"changes": []}, by=OPERATOR, kind="mutation").ok
