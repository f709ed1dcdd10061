"""Issuers of tokens for the tests: keys, tokens signed with them, and a provider that can be made to misbehave."""

from __future__ import annotations

import hmac
import json
import threading
import time
import warnings
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

DISCOVERY = "/.well-known/openid-configuration"
KEYS = "/keys"


class SigningKey:
    """A key of an issuer, and what it signs."""

    def __init__(self, algorithm: str, kid: str | None, key: Key) -> None:
        self.algorithm, self.kid, self.key = algorithm, kid, key

    def public(self, **more: object) -> dict[str, Any]:
        """As an issuer publishes it."""
        named = {} if self.kid is None else {"kid": self.kid}
        return {**self.key.as_dict(private=False), **named, **more}

    def private(self) -> dict[str, Any]:
        """As the issuer keeps it."""
        return {**self.key.as_dict(private=True), "kid": self.kid, "alg": self.algorithm, "use": "sig"}

    def sign(self, claims: Mapping[str, object], **header: object) -> str:
        """A token with these claims. A header field of None is left out."""
        fields = {"alg": self.algorithm, "typ": "JWT", "kid": self.kid, **header}
        return signed(claims, self.key, {name: value for name, value in fields.items() if value is not None})


def signed(claims: object, key: Key | None, header: dict[str, Any]) -> str:
    """A token of any header and claims."""
    return _put_together(header, claims, lambda message: jws.JWSRegistry.algorithms[header["alg"]].sign(message, key))


def shared(claims: object, secret: bytes, header: dict[str, Any]) -> str:
    """A token signed with a shared secret, for which the library, unlike a forger, does not take a public key."""
    return _put_together(header, claims, lambda message: hmac.digest(secret, message, "sha256"))


def _put_together(header: object, claims: object, sign: Callable[[bytes], bytes]) -> str:
    parts = [json.dumps(part).encode() for part in (header, claims)]
    message = b".".join(urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    return (message + b"." + urlsafe_b64encode(sign(message)).rstrip(b"=")).decode()


@cache
def rsa(kid: str | None = "rsa-1", bits: int = 2048) -> SigningKey:
    return SigningKey("RS256", kid, _without_warnings(lambda: RSAKey.generate_key(bits)))


@cache
def ec(kid: str | None = "ec-1") -> SigningKey:
    return SigningKey("ES256", kid, ECKey.generate_key("P-256"))


@cache
def ed(kid: str | None = "ed-1") -> SigningKey:
    return SigningKey("EdDSA", kid, OKPKey.generate_key("Ed25519"))


def key_set(*keys: SigningKey) -> dict[str, Any]:
    return {"keys": [key.public() for key in keys]}


def data_url(content: object) -> str:
    """A document in a URL."""
    return "data:text/plain;charset=utf-8;base64," + b64encode(json.dumps(content).encode()).decode()


def person(issuer: str, now: float | None = None, **claims: object) -> dict[str, Any]:
    """The claims of a token that is good for an hour. A claim of None is left out."""
    now = time.time() if now is None else now
    found: dict[str, Any] = {
        "iss": issuer,
        "sub": "ada",
        "aud": "convex",
        "iat": int(now),
        "exp": int(now) + 3600,
        **claims,
    }
    return {name: value for name, value in found.items() if value is not None}


class Provider:
    """An OpenID Connect provider on this machine, as far as a verifier sees one. What it answers can be changed at any time."""

    def __init__(self, *keys: SigningKey) -> None:
        self.asked: list[str] = []
        """The paths of all requests."""
        self.answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        """What to do at a path instead of answering well."""
        self.issuer = ""
        self.keys = list(keys)
        self.document: dict[str, object] = {}

    def publish(self, *keys: SigningKey) -> None:
        """Change the key set."""
        self.keys = list(keys)

    def is_down(self, *, down: bool = True) -> None:
        """Answer everything with 503, or well again."""
        self.answers = dict.fromkeys((DISCOVERY, KEYS), _unavailable) if down else {}

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append(handler.path)
        if (special := self.answers.get(handler.path)) is not None:
            special(handler)
        elif handler.path == DISCOVERY:
            respond(handler, {"issuer": self.issuer, "jwks_uri": f"{self.issuer}{KEYS}", **self.document})
        elif handler.path == KEYS:
            respond(handler, key_set(*self.keys))
        else:
            handler.send_error(404)


@contextmanager
def running_provider(*keys: SigningKey) -> Iterator[Provider]:
    """A provider with these keys, stopped when the block is left."""
    provider = Provider(*keys)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            provider.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    provider.issuer = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def respond(
    handler: BaseHTTPRequestHandler, content: object, status: int = 200, *, location: str = "", encoding: str = ""
) -> None:
    """Answer with this document, or these bytes."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    handler.send_response(status)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", str(len(body)))
    for name, value in (("location", location), ("content-encoding", encoding)):
        if value:
            handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def _unavailable(handler: BaseHTTPRequestHandler) -> None:
    respond(handler, {}, 503)


def _without_warnings(make: Callable[[], Key]) -> Key:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()
