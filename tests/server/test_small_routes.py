"""What else there is on the API's port, for people, browsers and the clients of later versions (protocol 4.6, 6.1)."""

from __future__ import annotations

import pytest

from camber.server import create_site_app
from tests.server.asking import Client, call
from tests.server.conftest import Opening


def test_the_front_page_says_that_it_runs(client: Client) -> None:
    assert client.get("/").body == b"This Convex deployment is running. See https://docs.convex.dev/."


def test_version_and_name_are_plain_text(client: Client) -> None:
    assert client.get("/instance_name").body == b"camber"
    assert client.get("/version").body == client.get("/instance_version").body != b""
    assert client.get("/version").headers["content-type"].startswith("text/plain")


def test_health_and_readiness(opened: Opening) -> None:
    client = opened()
    assert client.get("/healthz").status == 200
    assert (client.get("/readyz").status, client.get("/readyz").body) == (200, b"ready")

    client.backend.close()

    assert client.get("/healthz").status == 200
    assert (client.get("/readyz").status, client.get("/readyz").body) == (503, b"shutting down")


def test_a_server_whose_data_was_taken_away_is_not_ready(client: Client) -> None:
    file = client.backend.data / "camber.sqlite3"
    file.rename(file.with_name("elsewhere"))

    assert (client.get("/readyz").status, client.get("/readyz").body) == (503, b"nothing can be written any more")

    file.with_name("elsewhere").rename(file)
    assert client.get("/readyz").status == 200


def test_echo_gives_bytes_back_and_never_a_page(client: Client) -> None:
    page = b"<script>alert(1)</script>"
    answered = client.post("/echo", page, headers={"Content-Type": "text/html"})
    assert answered.body == page
    assert answered.headers["content-type"] == "application/octet-stream"
    assert answered.headers["x-content-type-options"] == "nosniff"


def test_the_operator_can_check_the_key(client: Client, admin: dict[str, str]) -> None:
    answered = client.get("/api/check_admin_key", headers=admin)
    assert answered.json["success"] is True
    assert answered.json["isReadOnly"] is False
    assert client.get("/api/check_admin_key").code == "BadDeployKey"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/storage/upload"),
        ("GET", "/api/storage/abc"),
        ("POST", "/api/export/request/zip"),
        ("POST", "/api/import/start_upload"),
        ("POST", "/api/perform_import"),
        ("GET", "/api/v1/get_canonical_urls"),
        ("POST", "/api/deploy2/start_push"),
        ("POST", "/api/get_config_hashes"),
        ("POST", "/api/run_test_function"),
        ("GET", "/api/stream_udf_execution"),
        ("POST", "/api/vector_search"),
    ],
)
def test_what_is_not_offered_yet_says_so_and_is_not_tried_again(client: Client, method: str, path: str) -> None:
    answered = client.ask(method, path)
    assert (answered.status, answered.code) == (400, "NotOfferedYet")


@pytest.mark.parametrize("path", ["/api/sync", "/api/1.48.0/sync"])
def test_the_place_of_a_socket_says_so_over_http(client: Client, path: str) -> None:
    answered = client.get(path)
    assert (answered.status, answered.code) == (400, "WebSocketExpected")


@pytest.mark.parametrize("path", ["/api/nope", "/api", "/api/query/", "/nope", "/api/run/", "/apix/query"])
def test_an_unknown_path_is_not_found(client: Client, path: str) -> None:
    answered = client.post(path, {})
    assert (answered.status, answered.code) == (404, "NotFound")
    assert path in answered.json["message"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/mutation", "POST"),
        ("PUT", "/api/query", "POST, GET"),
        ("DELETE", "/api/run/notes/texts", "POST"),
        ("POST", "/version", "GET, HEAD"),
    ],
)
def test_another_method_is_not_allowed(client: Client, method: str, path: str, allowed: str) -> None:
    answered = client.ask(method, path)
    assert (answered.status, answered.code) == (405, "MethodNotAllowed")
    assert answered.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/", "/hook", "/api/auth/session"])
def test_the_site_has_no_routes_yet(client: Client, path: str) -> None:
    site = Client(create_site_app(client.backend), client.runner, client.backend)
    for answered in (site.get(path), client.get("/http" + path)):
        assert (answered.status, answered.body) == (
            404,
            b"This Convex deployment does not have HTTP actions enabled.",
        )


# Browsers.
PAGE = {"Origin": "http://localhost:5173"}


def test_a_page_of_any_origin_may_read_the_answer(client: Client) -> None:
    headers = client.post("/api/query", call("notes:texts"), headers=PAGE).headers
    assert headers["access-control-allow-origin"] == "http://localhost:5173"
    assert headers["access-control-allow-credentials"] == "true"
    assert headers["vary"] == "Origin"


@pytest.mark.parametrize("path", ["/api/query", "/api/nope", "/api/storage/upload"])
def test_a_page_may_read_errors_too(client: Client, path: str) -> None:
    answered = client.post(path, b"{", headers=PAGE)
    assert answered.status >= 400
    assert answered.headers["access-control-allow-origin"] == "http://localhost:5173"


@pytest.mark.parametrize("path", ["/api/query", "/api/run/notes/texts", "/api/storage/upload", "/api/check_admin_key"])
def test_a_browser_that_asks_first_is_told_what_it_may_send(client: Client, path: str) -> None:
    asked = {**PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-mine"}
    answered = client.ask("OPTIONS", path, headers=asked)

    assert answered.status == 200
    assert answered.headers["access-control-allow-origin"] == "http://localhost:5173"
    assert answered.headers["access-control-allow-methods"] == "GET,POST,OPTIONS,PATCH,DELETE,PUT"
    assert answered.headers["access-control-allow-headers"] == "authorization,x-mine"
    assert answered.headers["access-control-max-age"] == "86400"


def test_without_an_origin_nothing_is_said_of_origins(client: Client) -> None:
    assert not [name for name in client.post("/api/query", call("notes:texts")).headers if "access-control" in name]


def test_memory_does_not_grow_with_origins(client: Client) -> None:
    for number in range(1_500):
        answered = client.get("/api/nope", headers={"Origin": f"http://{number}"})
        assert answered.headers["access-control-allow-origin"] == f"http://{number}"
    assert "access-control-allow-origin" not in client.get("/api/nope", headers={"Origin": "x" * 5_000}).headers
