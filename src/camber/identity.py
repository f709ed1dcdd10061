"""Who is calling, as plain values: an identity, and the caller who may or may not have one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass


class Identity(Mapping[str, object]):
    """The claims of a signed-in person, under Convex's camelCase names (protocol 3.1, 4.5); common ones also as attributes.

    `identity["sessionId"]` or `identity.get("sessionId")` reads a claim that the issuer added.
    """

    __slots__ = ("_claims", "fingerprint")

    def __init__(self, claims: Mapping[str, object]) -> None:
        self._claims = dict(claims)
        self.fingerprint = hashlib.sha256(repr(sorted(self._claims.items())).encode(errors="backslashreplace")).digest()
        """Equal for equal claims."""

    def __getitem__(self, claim: str) -> object:
        return self._claims[claim]

    def __iter__(self) -> Iterator[str]:
        return iter(self._claims)

    def __len__(self) -> int:
        return len(self._claims)

    def __hash__(self) -> int:
        return hash((self.issuer, self.subject))

    def __repr__(self) -> str:
        return f"Identity({self.token_identifier!r})"

    @property
    def token_identifier(self) -> str:
        """The issuer and subject as one text: the stable name of this person."""
        return str(self._claims.get("tokenIdentifier", f"{self.issuer}|{self.subject}"))

    @property
    def issuer(self) -> str:
        return str(self._claims.get("issuer", ""))

    @property
    def subject(self) -> str:
        """The issuer's own id of this person."""
        return str(self._claims.get("subject", ""))

    @property
    def name(self) -> str | None:
        return self._text("name")

    @property
    def email(self) -> str | None:
        return self._text("email")

    @property
    def email_verified(self) -> bool:
        """True only if the issuer says so."""
        return self._claims.get("emailVerified") is True

    def _text(self, claim: str) -> str | None:
        value = self._claims.get(claim)
        return value if isinstance(value, str) else None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call, and from where.

    `is_admin` means that the deployment's admin key came along: internal functions can be reached. Without an identity that is
    the operator; with one, the operator acting as that person. `address` is the client's, None where there is none.
    """

    identity: Identity | None = None
    is_admin: bool = False
    address: str | None = None

    @property
    def is_operator(self) -> bool:
        """The admin key without impersonation."""
        return self.is_admin and self.identity is None


ANONYMOUS = Caller()
OPERATOR = Caller(is_admin=True)
