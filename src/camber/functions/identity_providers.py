"""Who may say who a caller is: the issuers of tokens that an application names in its `auth.py` (protocol 4.5)."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast, get_args
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from camber.errors import ConfigurationError

CustomAlgorithm = Literal["RS256", "ES256"]

KEY_TYPES: Final = {"RS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
"""The algorithms that tokens may be signed with, and the `kty` of a key for each. All of them have a public and a private half."""

DATA_URL_BYTES: Final = 256 * 1024

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PRINTABLE: Final = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Oidc:
    """An OpenID Connect provider: tokens whose issuer is `domain` and whose audience has `application_id`, signed with its keys.

    `domain` is written as in Convex's `auth.config.ts`, with or without `https://`. Raises ConfigurationError.
    """

    domain: str
    application_id: str

    def __post_init__(self) -> None:
        _check_issuer("Oidc", "domain", self.domain)
        _check_text("Oidc", "application_id", self.application_id)

    @property
    def issuer(self) -> str:
        """The domain in the form that issuers are compared in."""
        return canonical_issuer(self.domain)

    @property
    def algorithms(self) -> tuple[str, ...]:
        """What its tokens may be signed with. Convex takes no ES256 here; a provider that publishes such a key means it to be used."""
        return ("RS256", "EdDSA", "ES256")


@dataclass(frozen=True, slots=True)
class CustomJwt:
    """An issuer of tokens that is no OpenID Connect provider; its keys are at `jwks`, a URL or a `data:` URL with the keys themselves.

    Without `application_id` a token for anybody is taken, also one that the issuer made for another application. Raises
    ConfigurationError.
    """

    issuer: str
    jwks: str
    algorithm: CustomAlgorithm = "RS256"
    application_id: str | None = None

    def __post_init__(self) -> None:
        _check_issuer("CustomJwt", "issuer", self.issuer)
        if self.algorithm not in get_args(CustomAlgorithm):
            raise ConfigurationError(f'CustomJwt: algorithm is {self.algorithm!r}; allowed: "RS256" and "ES256"')
        if self.application_id is not None:
            _check_text("CustomJwt", "application_id", self.application_id)
        if isinstance(self.jwks, str) and self.jwks[:5].lower() == "data:":  # pyright: ignore[reportUnnecessaryIsInstance]
            _check_data_url(self.jwks, KEY_TYPES[self.algorithm])
        else:
            check_url("CustomJwt: jwks", self.jwks)

    @property
    def algorithms(self) -> tuple[str, ...]:
        """What its tokens may be signed with."""
        return (self.algorithm,)


IdentityProvider = Oidc | CustomJwt


@dataclass(frozen=True, kw_only=True)
class Auth:
    """How callers of an application sign in: `auth = Auth(identities=[...])` in its `auth.py`.

    Of several providers that fit a token the first one counts. Raises ConfigurationError.
    """

    identities: Sequence[IdentityProvider] = ()

    def __post_init__(self) -> None:
        given = cast(object, self.identities)
        if not isinstance(given, list | tuple):
            raise ConfigurationError(f"Auth: identities is {given!r}; write a list: identities=[Oidc(…)]")
        for one in cast("Sequence[object]", given):
            if not isinstance(one, Oidc | CustomJwt):
                raise ConfigurationError(f"Auth: identities has {one!r}; Oidc(…) and CustomJwt(…) can stand there")
        object.__setattr__(self, "identities", tuple(self.identities))


def canonical_issuer(issuer: str) -> str:
    """An issuer in the form that issuers are compared in: with `https://` where it has no scheme, without a slash at its end.

    Several providers tell people another spelling of their name than the one in their tokens.
    """
    return (issuer if _SCHEME.match(issuer) else f"https://{issuer}").rstrip("/")


def check_url(what: str, url: object) -> SplitResult:
    """The parts of a URL that keys may be fetched from: https, or http on this machine. Raises ConfigurationError."""
    allowed = "an https:// URL (http:// only on this machine), without user and fragment"
    if not isinstance(url, str) or not _PRINTABLE.fullmatch(url):
        raise ConfigurationError(f"{what} is {_shown(url)}; write {allowed}")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError(f"{what} is {_shown(url)}, which is no URL; write {allowed}") from None
    if "@" in parts.netloc:
        # Not shown: what stands before the @ may be a password.
        raise ConfigurationError(f"{what} has a user name in it; write {allowed}")
    if (
        not host
        or parts.scheme not in {"http", "https"}
        or "#" in url
        or (parts.scheme == "http" and not _is_here(host))
    ):
        raise ConfigurationError(f"{what} is {_shown(url)}; write {allowed}")
    return parts


def decode_data_url(url: str) -> bytes:
    """What a `data:` URL holds. Raises ValueError."""
    head, comma, content = url[5:].partition(",")
    if not comma:
        raise ValueError("it has no comma")
    data = unquote_to_bytes(content)
    return base64.b64decode(data, validate=True) if head.lower().endswith(";base64") else data


def _check_issuer(kind: str, field: str, issuer: object) -> None:
    if not isinstance(issuer, str) or not issuer:
        raise ConfigurationError(
            f"{kind}: {field} is {_shown(issuer)}; write the issuer's URL, as its tokens have it in `iss`"
        )
    parts = check_url(f"{kind}: {field}", canonical_issuer(issuer))
    if parts.query or "?" in issuer:
        raise ConfigurationError(f"{kind}: {field} is {_shown(issuer)}; an issuer has no query behind a question mark")


def _check_text(kind: str, field: str, text: object) -> None:
    if not isinstance(text, str) or not text:
        raise ConfigurationError(f"{kind}: {field} is {_shown(text)}; write the audience that its tokens have in `aud`")


def _check_data_url(url: str, key_type: str) -> None:
    expected = 'a JSON object {"keys": [...]} is expected in it, percent-encoded or in base64'
    if len(url) > DATA_URL_BYTES:
        raise ConfigurationError(f"CustomJwt: jwks has {len(url)} letters; at most {DATA_URL_BYTES} are allowed")
    try:
        found: object = json.loads(decode_data_url(url))
    except (ValueError, RecursionError, binascii.Error):
        raise ConfigurationError(f"CustomJwt: jwks is a data: URL that can't be read; {expected}") from None
    keys = cast("dict[str, Any]", found).get("keys") if isinstance(found, dict) else None
    if not isinstance(keys, list):
        raise ConfigurationError(f"CustomJwt: jwks is a data: URL without keys; {expected}")
    entries = [cast("dict[str, Any]", key) for key in cast("list[Any]", keys) if isinstance(key, dict)]
    entries = [cast("dict[str, Any]", key) for key in cast("list[Any]", keys) if isinstance(key, dict)]
    fitting = [key for key in entries if key.get("kty") == key_type]
    if not fitting:
        raise ConfigurationError(
            f'CustomJwt: jwks has no key of the type that the algorithm needs ("kty": "{key_type}")'
        )
    if any("d" in key for key in fitting):
        raise ConfigurationError(
            'CustomJwt: jwks holds a private key ("d"), with which anybody who sees it can sign in as anybody. '
            "Make a new key, and write only its public half here."
        )


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "…"
