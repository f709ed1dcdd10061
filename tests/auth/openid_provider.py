"""A real OpenID provider, in a process of its own, and people who sign in there."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

import httpx

from tests.auth.issuing import SigningKey
from tests.clients.driver import HERE

_FORM = re.compile(r'<form[^>]+action="([^"]+)"')
_REDIRECT = "http://127.0.0.1/signed-in"
_CLIENTS = ("convex", "another")


class OpenIdProvider:
    """npm's `oidc-provider`, told over its stdin what to do."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.issuer = ""

    def use(self, *keys: SigningKey) -> None:
        """Sign with the first of these keys from now on, and publish them all."""
        clients = [
            {
                "client_id": name,
                "redirect_uris": [_REDIRECT],
                "response_types": ["code"],
                "token_endpoint_auth_method": "none",
                "id_token_signed_response_alg": keys[0].algorithm,
            }
            for name in _CLIENTS
        ]
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(
            json.dumps({"keys": {"keys": [k.private() for k in keys]}, "clients": clients}) + "\n"
        )
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the provider ended with {self._process.wait()}; what it printed is above"
        self.issuer = json.loads(line)["issuer"]

    def id_token(self, person: str, *, client_id: str = "convex") -> str:
        """Sign in as somebody, as a browser does, by the authorization code flow with PKCE."""
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "client_id": client_id,
            "response_type": "code",
            "redirect_uri": _REDIRECT,
            "scope": "openid profile email",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "nonce": "once",
        }
        with httpx.Client(base_url=self.issuer, trust_env=False, timeout=60) as browser:
            redeemed = browser.post(
                "/token",
                data={
                    "client_id": client_id,
                    "grant_type": "authorization_code",
                    "code": _code(browser, asked, person),
                    "redirect_uri": _REDIRECT,
                    "code_verifier": verifier,
                },
            )
        assert redeemed.status_code == 200, redeemed.text
        return redeemed.json()["id_token"]

    def stop(self) -> None:
        """Nobody answers at its address any more."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(60)


@contextmanager
def running_openid_provider(*keys: SigningKey) -> Iterator[OpenIdProvider]:
    """A provider with these keys, ended when the block is left."""
    command = [shutil.which("node") or "node", str(HERE / "node/openid_provider.mjs")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            provider = OpenIdProvider(process)
            provider.use(*keys)
            yield provider
        finally:
            process.kill()


def _code(browser: httpx.Client, asked: Mapping[str, str], person: str) -> str:
    """Follow the provider's redirects and fill in its form until it sends the browser back with a code."""
    page = browser.get("/auth", params=dict(asked))
    for _ in range(10):
        if page.is_redirect:
            target = page.headers["location"]
            if target.startswith(_REDIRECT):
                return parse_qs(urlsplit(target).query)["code"][0]
            page = browser.get(target)
        else:
            form = _FORM.search(page.text)
            assert form, page.text
            page = browser.post(form[1], data={"prompt": "login", "login": person, "password": "any"})
    raise AssertionError(f"no code after ten pages; the last one: {page.text}")
