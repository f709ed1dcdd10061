"""Keys as providers publish them (RFC 7517), and whether a token was signed with one (RFC 7515)."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from camber.errors import InvalidValueError
from camber.functions import KEY_TYPES
from camber.values import parse_json

MAX_KEYS: Final = 64
"""A token that does not name its key is tried with each; this bounds what that costs."""

_RSA_BITS: Final = range(2048, 8192 + 1)
_PUBLIC: Final[Mapping[str, tuple[str, ...]]] = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_CURVES: Final[Mapping[str, str]] = {"ES256": "P-256", "EdDSA": "Ed25519"}
_CLASSES: Final = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}


class _OneAlgorithm(jws.JWSRegistry):
    """Takes one algorithm and no other, whatever the token says. Its header may have fields of the issuer's own."""

    max_header_length = 16 * 1024

    def __init__(self, name: str) -> None:
        super().__init__(algorithms=[name], strict_check_header=False)
        self._only = name

    def get_alg(self, name: str) -> Any:
        if name != self._only:
            raise ValueError("another algorithm")
        return self.algorithms[
            name
        ]  # not the parent's: it warns of EdDSA, which has two curves; the key's is checked here


_REGISTRIES: Final = {algorithm: _OneAlgorithm(algorithm) for algorithm in KEY_TYPES}


class UnusableKeysError(Exception):
    """A document that holds no keys that tokens could be verified with; the message says why."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The public half of one key. `kid` is its name; `algorithm` the only one it is used with."""

    kid: str | None
    algorithm: str
    key: RSAKey | ECKey | OKPKey

    def has_signed(self, token: str) -> bool:
        """Whether this key made the token's signature."""
        try:
            jws.deserialize_compact(token, self.key, registry=_REGISTRIES[self.algorithm])
        except (JoseError, ValueError):
            return False
        return True


def read_keys(text: bytes, algorithms: Collection[str]) -> tuple[SigningKey, ...]:
    """The keys of a key set that are for one of these algorithms; others are left aside (RFC 7517, section 5).

    Raises UnusableKeysError.
    """
    try:
        found: object = parse_json(text)
    except InvalidValueError as error:
        raise UnusableKeysError(f"the key set can't be read: {error}") from None
    listed = cast("dict[str, object]", found).get("keys") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise UnusableKeysError("the key set has no list `keys`")
    entries = cast("list[object]", listed)
    if len(entries) > MAX_KEYS:
        raise UnusableKeysError(f"the key set has {len(entries)} keys; at most {MAX_KEYS} are taken")
    keys = [key for entry in entries if isinstance(entry, dict) and (key := _read_key(cast(Any, entry), algorithms))]
    if not keys:
        raise UnusableKeysError(f"the key set has no sound key for {' or '.join(algorithms)}")
    return tuple(keys)


def _read_key(entry: Mapping[str, object], algorithms: Collection[str]) -> SigningKey | None:
    algorithm = next((name for name in algorithms if _is_for(entry, name)), None)
    if algorithm is None:
        return None
    kind = KEY_TYPES[algorithm]
    # Its public numbers only: a private half that was published by mistake does not get into memory, and nothing else counts.
    public: Any = {"kty": kind, **{name: entry.get(name) for name in _PUBLIC[kind]}}
    if kind == "RSA" and not _has_sound_size(public["n"]):
        return None
    try:
        key = _CLASSES[kind].import_key(public)
    except (JoseError, ValueError, TypeError):
        return None
    kid = entry.get("kid")
    return SigningKey(kid if isinstance(kid, str) else None, algorithm, key)


def _is_for(entry: Mapping[str, object], algorithm: str) -> bool:
    operations = entry.get("key_ops", ["verify"])
    return (
        entry.get("kty") == KEY_TYPES[algorithm]
        and entry.get("alg", algorithm) == algorithm
        and entry.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
        and (algorithm not in _CURVES or entry.get("crv") == _CURVES[algorithm])
    )


def _has_sound_size(modulus: object) -> bool:
    """Short keys can be broken; long ones take long to verify with."""
    if not isinstance(modulus, str) or len(modulus) > _RSA_BITS.stop:
        return False
    try:
        return int.from_bytes(urlsafe_b64decode(modulus + "=" * (-len(modulus) % 4)), "big").bit_length() in _RSA_BITS
    except ValueError:
        return False
