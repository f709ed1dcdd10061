"""A real server, a real OpenID provider and Convex's own clients: whose tokens are taken, and whose are not."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from camber.auth.keys import UNKNOWN_KEY_SECONDS
from tests.auth.issuing import SigningKey, data_url, ec, ed, key_set, person, rsa, shared, signed
from tests.auth.openid_provider import OpenIdProvider, running_openid_provider
from tests.clients.driver import Client, running_client
from tests.wire.running_server import REPOSITORY, RunningServer, running_server

PATIENCE = 60.0
CUSTOM = "https://tokens.example.com"
NOT_VERIFIED = (
    "Could not verify OIDC token claim. Check that the token signature is valid and the token hasn't expired. "
)


@dataclass(frozen=True)
class SigningIn:
    """A provider, a server that takes its tokens, and one that asks the server."""

    provider: OpenIdProvider
    server: RunningServer

    def whoami(self, token: str) -> tuple[int, Any]:
        """Status and answer of a call with this token."""
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=PATIENCE)
        try:
            body = json.dumps({"path": "people:whoami", "args": {}, "format": "json"})
            connection.request("POST", "/api/query", body, {"Authorization": f"Bearer {token}"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def subject_of(self, token: str) -> str:
        """Who the server takes the holder for, as soon as the provider has answered it."""
        deadline = time.monotonic() + PATIENCE
        while (found := self.whoami(token))[0] == 503 and time.monotonic() < deadline:
            time.sleep(0.1)
        status, answer = found
        assert status == 200, answer
        return answer["value"]["subject"]

    def refusal_of(self, token: str) -> tuple[int, str, str]:
        """Status, code and message of the refusal."""
        status, answer = self.whoami(token)
        return status, answer["code"], answer["message"]


@contextmanager
def signing_in(data: Path, *keys: SigningKey) -> Iterator[SigningIn]:
    with running_openid_provider(*keys) as provider:
        env = {"CAMBER_DEV": "1", "PROVIDER": provider.issuer, "KEYS": data_url(key_set(ec()))}
        with running_server(REPOSITORY / "tests/auth/app", data, env=env) as server:
            yield SigningIn(provider, server)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SigningIn]:
    """Everything is running; the provider signs with an RSA key, which the server knows already."""
    with signing_in(tmp_path_factory.mktemp("tokens") / "data", rsa()) as running:
        running.subject_of(rsa().sign(person(running.provider.issuer)))
        yield running


@pytest.fixture(scope="module")
def start_client(here: SigningIn) -> Iterator[Callable[[str], Client]]:
    """Gives a client of the server by its name."""
    with running_client("npm newest", here.server.url) as npm, running_client("pypi newest", here.server.url) as pypi:
        yield {"npm": npm, "pypi": pypi}.__getitem__


@pytest.mark.parametrize("name", ["npm", "pypi"])
def test_somebody_signs_in_at_the_provider_and_calls(
    here: SigningIn, start_client: Callable[[str], Client], name: str
) -> None:
    client = start_client(name)
    client.perform("setAuth", token=here.provider.id_token("ada"))

    assert client.query("people:whoami").value == {
        "tokenIdentifier": f"{here.provider.issuer}|ada",
        "issuer": here.provider.issuer,
        "subject": "ada",
        "name": "ada of the provider",
        "givenName": "ada",
        "pictureUrl": f"{here.provider.issuer}/ada.png",
        "email": "ada@example.com",
        "emailVerified": True,
    }
    assert client.mutation("people:signIn").value == f"{here.provider.issuer}|ada"
    assert client.action("people:ask").value == f"{here.provider.issuer}|ada"

    client.perform("setAuth", token=here.provider.id_token("bob"))
    assert client.query("people:whoami").value["subject"] == "bob"
    client.perform("clearAuth")
    assert client.query("people:whoami").value is None


def test_a_client_is_told_why_its_token_is_refused(here: SigningIn, start_client: Callable[[str], Client]) -> None:
    client = start_client("npm")
    client.perform("setAuth", token=rsa().sign(person(here.provider.issuer, time.time() - 7200)))

    assert "Could not verify OIDC token claim" in (client.query("people:whoami").error or "")


def test_a_token_for_another_application_of_the_provider_is_refused(here: SigningIn) -> None:
    status, code, message = here.refusal_of(here.provider.id_token("ada", client_id="another"))

    assert (status, code) == (401, "NoAuthProvider")
    assert f"[OIDC(domain={here.provider.issuer}, app_id=convex), CustomJWT(issuer={CUSTOM}, app_id=convex)]" in message


def test_a_token_of_another_issuer_is_refused(here: SigningIn) -> None:
    token = rsa().sign(person("https://id.example.com"))

    assert here.refusal_of(token)[:2] == (401, "NoAuthProvider")


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ({"exp": -1}, "(It has expired.)"),
        ({"nbf": 60}, "(It is not valid yet (`nbf` is in the future).)"),
        ({"iat": 60}, "(It is not valid yet (`iat` is in the future).)"),
    ],
)
def test_a_token_of_another_time_is_refused(here: SigningIn, times: dict[str, int], reason: str) -> None:
    now = int(time.time())
    token = rsa().sign(person(here.provider.issuer, now, **{name: now + offset for name, offset in times.items()}))

    assert here.refusal_of(token) == (401, "Unauthenticated", NOT_VERIFIED + reason)


def test_clocks_may_differ_a_little(here: SigningIn) -> None:
    now = int(time.time())

    assert here.subject_of(rsa().sign(person(here.provider.issuer, now, iat=now + 4, nbf=now + 4))) == "ada"


def forgeries(token: str, claims: dict[str, Any]) -> Iterator[str]:
    """What somebody can make who knows the public keys and one good token."""
    header, _, signature = token.split(".")
    pem = rsa().key.as_pem(private=False)  # type: ignore[union-attr]
    yield SigningKey("RS256", "rsa-1", rsa("somebody's").key).sign(claims)
    yield signed(claims, None, {"alg": "none", "kid": "rsa-1"})
    yield shared(claims, pem, {"alg": "HS256", "kid": "rsa-1"})
    yield shared(claims, json.dumps(rsa().public()).encode(), {"alg": "HS256", "kid": "rsa-1"})
    yield f"{header}.{base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b'=').decode()}.{signature}"
    yield ec().sign(claims, kid="rsa-1")


def test_forged_tokens_are_refused(here: SigningIn) -> None:
    good = here.provider.id_token("ada")
    assert here.subject_of(good) == "ada"

    for token in forgeries(good, person(here.provider.issuer, sub="eve")):
        status, code, message = here.refusal_of(token)
        assert (status, code) == (401, "Unauthenticated")
        assert message.startswith(NOT_VERIFIED)


def test_a_custom_issuer_whose_keys_stand_in_the_application_is_taken(here: SigningIn) -> None:
    assert here.subject_of(ec().sign(person(CUSTOM))) == "ada"
    assert here.refusal_of(rsa().sign(person(CUSTOM))) == (
        401,
        "InvalidAuthHeader",
        "Could not validate token: it must be signed with ES256",
    )


def test_new_keys_of_the_provider_are_found_and_old_ones_work_while_it_is_down(tmp_path: Path) -> None:
    with signing_in(tmp_path / "data", rsa()) as here:
        first = here.provider.id_token("ada")
        assert here.subject_of(first) == "ada"

        here.provider.use(ed("ed-new"), rsa())
        assert here.subject_of(here.provider.id_token("bob")) == "bob"
        assert here.subject_of(first) == "ada"

        here.provider.stop()
        claims = person(here.provider.issuer, sub="carol")
        assert here.subject_of(ed("ed-new").sign(claims)) == "carol"
        assert here.subject_of(rsa().sign(claims)) == "carol"
        time.sleep(UNKNOWN_KEY_SECONDS)  # so often an unknown key makes the server ask
        assert here.refusal_of(ed("never seen").sign(claims))[:2] == (503, "IdentityProviderUnreachable")
        log = here.server.log.read_text()
    assert "the keys of an identity provider can't be fetched" in log
    assert not any(part in log for part in first.split("."))


def test_a_server_starts_and_serves_while_its_provider_is_down(tmp_path: Path) -> None:
    with running_openid_provider(rsa()) as provider:
        provider.stop()
    env = {"PROVIDER": provider.issuer, "KEYS": data_url(key_set(ec()))}
    with running_server(REPOSITORY / "tests/auth/app", tmp_path / "data", env=env) as server:
        here = SigningIn(provider, server)

        assert here.refusal_of(rsa().sign(person(provider.issuer)))[:2] == (503, "IdentityProviderUnreachable")
        assert here.subject_of(ec().sign(person(CUSTOM))) == "ada"
