"""Every setting of a deployment: its default, its unit, its bounds, and the variable `CAMBER_<NAME>` that sets it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final, TypeVar, cast

from camber.errors import ConfigurationError

T = TypeVar("T")

PREFIX: Final = "CAMBER_"

KIB: Final = 1024
MIB: Final = 1024 * KIB

TEST_DATABASE_VARIABLE: Final = "CAMBER_TEST_DATABASE_URL"
COMMAND_VARIABLES: Final = frozenset({"CAMBER_URL", "CAMBER_ADMIN_KEY", "CAMBER_DATA", TEST_DATABASE_VARIABLE})
"""Variables that the command line reads itself; they are no settings of a server and no misspelt ones either."""

_SIZE_UNITS: Final = {"": 1, "b": 1, "kib": KIB, "mib": MIB, "gib": 1024 * MIB}
_SIZE: Final = re.compile(r"(\d+)\s*([a-z]*)", re.IGNORECASE)
_SWITCHES: Final = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}
_INSTANCE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_HOST_TEXT: Final = re.compile(r"[^\s/@]+")
_ORIGIN: Final = re.compile(r"https?://[^\s/?#@]+")


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one kind of setting is read from text, what is allowed in words, and which values are."""

    allowed: str
    read: Callable[[str], object]
    fits: Callable[[object], bool]


@dataclass(frozen=True, slots=True)
class Description:
    """What docs and messages say of one setting."""

    name: str
    variable: str
    default: str
    unit: str
    allowed: str
    text: str


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(low: int, high: int) -> _Kind:
    def fits(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return _Kind(f"a whole number from {low} to {high}", int, fits)


def _seconds(low: float, high: float) -> _Kind:
    def fits(value: object) -> bool:
        return _number(value) and low <= cast(float, value) <= high

    return _Kind(f"seconds from {low:g} to {high:g}", float, fits)


def _size(low: int, high: int) -> _Kind:
    def read(text: str) -> int:
        match = _SIZE.fullmatch(text)
        if match is None:
            raise ValueError(text)
        return int(match[1]) * _SIZE_UNITS[match[2].lower()]

    def fits(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return _Kind(f"bytes from {_bytes_text(low)} to {_bytes_text(high)}, also as 64KiB, 16MiB, 1GiB", read, fits)


def _bytes_text(count: int) -> str:
    for unit, name in ((1024 * MIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if count and count % unit == 0:
            return f"{count // unit} {name}"
    return str(count)


def _read_switch(text: str) -> bool:
    return _SWITCHES[text.lower()]


def _read_networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    # strict=False: 10.1.2.3/8 is taken as 10.0.0.0/8, as other servers do.
    return tuple(ip_network(part, strict=False) for part in re.split(r"[,\s]+", text) if part)


def _are_networks(value: object) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(part, IPv4Network | IPv6Network) for part in cast("tuple[object, ...]", value)
    )


def _one_of(*words: str) -> _Kind:
    return _Kind("one of " + ", ".join(words), str.lower, lambda value: value in words)


_SWITCH: Final = _Kind(
    "1 or 0 (also true, false, yes, no, on, off)", _read_switch, lambda value: isinstance(value, bool)
)
_HOST: Final = _Kind(
    "an address or host name", str, lambda value: isinstance(value, str) and _HOST_TEXT.fullmatch(value) is not None
)
_NETWORKS: Final = _Kind("addresses or networks (10.0.0.0/8), separated by commas", _read_networks, _are_networks)
_NAME: Final = _Kind(
    "letters, digits, - and _ (63 at most, beginning with a letter or digit)",
    str,
    lambda value: isinstance(value, str) and _INSTANCE_NAME.fullmatch(value) is not None,
)
_DATABASE_URL: Final = _Kind(
    "nothing, or postgresql://user:password@host:5432/name",
    str,
    lambda value: isinstance(value, str) and (not value or value.startswith(("postgresql://", "postgres://"))),
)
_URL: Final = _Kind(
    "nothing, or an origin such as https://api.example.com, without a path",
    lambda text: text.rstrip("/"),
    lambda value: value == "" or (isinstance(value, str) and _ORIGIN.fullmatch(value) is not None),
)


def _setting(default: T, kind: _Kind, text: str, *, unit: str = "", repr: bool = True) -> T:
    return field(default=default, repr=repr, metadata={"kind": kind, "text": text, "unit": unit})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one deployment. Each is checked when it is made; `docs/reference/settings.md` lists them.

    Raises ConfigurationError, which names the setting, what was found and what is allowed.
    """

    dev: bool = _setting(False, _SWITCH, "Clients see error texts and log lines of functions. On under `camber dev`.")
    instance_name: str = _setting("camber", _NAME, "The deployment's name: the first part of its admin key.")
    cloud_url: str = _setting(
        "", _URL, "Where clients reach the API from outside; empty: `http://` with the host and port it listens on."
    )
    site_url: str = _setting(
        "", _URL, "Where the application's HTTP routes are reached from outside; empty: as above, with the site port."
    )

    database_url: str = _setting(
        "",
        _DATABASE_URL,
        "The PostgreSQL database that holds the data, for one server or several. Empty: a SQLite file in the data folder.",
        repr=False,  # a password may be in it
    )
    database_connections: int = _setting(
        28,
        _whole(8, 1_000),
        "Connections to PostgreSQL that read, for each server; four more write and follow the others.",
    )

    host: str = _setting("127.0.0.1", _HOST, "The address to listen on, for both ports.")
    port: int = _setting(3210, _whole(0, 65_535), "The port of the API. 0: a free one.")
    site_port: int = _setting(3211, _whole(0, 65_535), "The port of the application's HTTP routes. 0: a free one.")
    workers: int = _setting(
        1,
        _whole(1, 256),
        "Processes of `camber serve` that share both ports; more than one need PostgreSQL. Limits of this page are for each of them.",
    )
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = _setting(
        (), _NETWORKS, "The proxies whose `X-Forwarded-For` is believed. Empty: nobody's."
    )
    connections: int = _setting(
        16_000,
        _whole(1, 1_000_000),
        "Connections open at once, live clients among them, for each port; more are closed at once.",
    )
    concurrent_requests: int = _setting(
        1_000, _whole(1, 1_000_000), "Requests at work at once; more are answered 503 with `Retry-After`."
    )
    request_body_bytes: int = _setting(
        16 * MIB + 2_000,
        _size(1 * KIB, 1_024 * MIB),
        "The largest request body; a larger one is answered 413.",
        unit="bytes",
    )
    request_body_seconds: float = _setting(
        60.0, _seconds(0.1, 3_600), "How long a request's body may take to arrive (408 after that).", unit="seconds"
    )
    buffered_body_bytes: int = _setting(
        256 * MIB,
        _size(1 * MIB, 1_024 * 1_024 * MIB),
        "Bytes of request bodies held in memory by all requests together; beyond that large ones are answered 503.",
        unit="bytes",
    )
    header_count: int = _setting(100, _whole(8, 10_000), "Headers of a request; with more it is answered 431.")
    header_bytes: int = _setting(
        64 * KIB, _size(1 * KIB, 16 * MIB), "Request line and headers together, while they arrive.", unit="bytes"
    )
    header_seconds: float = _setting(
        15.0, _seconds(0.1, 3_600), "How long request line and headers may take to arrive.", unit="seconds"
    )
    keep_alive_seconds: float = _setting(
        65.0, _seconds(0, 3_600), "How long a connection stays open between two requests.", unit="seconds"
    )
    shutdown_seconds: float = _setting(
        10.0, _seconds(0, 3_600), "How long a stopping server waits for the requests that still run.", unit="seconds"
    )
    log_format: str = _setting(
        "auto",
        _one_of("auto", "human", "json"),
        "How the server logs. auto: for people on a terminal, else JSON lines.",
    )
    log_level: str = _setting("info", _one_of("debug", "info", "warning", "error"), "The least level that is logged.")

    mutation_seconds: float = _setting(
        1.0, _seconds(0.001, 3_600), "How long a mutation may run before it is stopped.", unit="seconds"
    )
    query_seconds: float = _setting(
        1.0, _seconds(0.001, 3_600), "How long a query may run before it is stopped.", unit="seconds"
    )
    action_seconds: float = _setting(
        600.0, _seconds(0.001, 86_400), "How long an action may run before it is stopped.", unit="seconds"
    )
    documents_read: int = _setting(32_000, _whole(1, 1_000_000_000), "Documents that one transaction may read.")
    bytes_read: int = _setting(
        16 * MIB, _size(1, 1_024 * 1_024 * MIB), "Bytes of documents that one transaction may read.", unit="bytes"
    )
    ranges_read: int = _setting(4_096, _whole(1, 1_000_000_000), "Index ranges that one transaction may read.")
    documents_written: int = _setting(16_000, _whole(1, 1_000_000_000), "Documents that one mutation may write.")
    bytes_written: int = _setting(
        16 * MIB, _size(1, 1_024 * 1_024 * MIB), "Bytes of documents that one mutation may write.", unit="bytes"
    )
    arguments_bytes: int = _setting(16 * MIB, _size(1, 1_024 * MIB), "The size of a call's arguments.", unit="bytes")
    result_bytes: int = _setting(16 * MIB, _size(1, 1_024 * MIB), "The size of a function's result.", unit="bytes")
    query_threads: int = _setting(4, _whole(1, 1_000), "Threads that run queries, each with a reader of the database.")
    queued_mutations: int = _setting(
        1_000, _whole(1, 1_000_000), "Mutations that may wait for the writer; more are answered 503."
    )
    queued_queries: int = _setting(
        1_000, _whole(1, 1_000_000), "Queries that may wait for a thread; more are answered 503."
    )
    running_actions: int = _setting(64, _whole(1, 100_000), "Actions that run at once; more are answered 503.")
    cache_bytes: int = _setting(
        64 * MIB, _size(0, 1_024 * 1_024 * MIB), "Memory for results of queries that are kept.", unit="bytes"
    )
    cache_entries: int = _setting(10_000, _whole(0, 100_000_000), "Results of queries that are kept.")

    warnings: tuple[str, ...] = field(default=(), compare=False)
    """What to tell the operator: `CAMBER_` variables that are no setting, each with the nearest one."""

    def __post_init__(self) -> None:
        for setting in _ALL:
            found = getattr(self, setting.name)
            if not _kind(setting).fits(found):
                raise _misfit(setting.name, found)
        if self.port == self.site_port != 0:
            raise ConfigurationError(
                f"site_port ({variable('site_port')}) is {self.site_port}, which is the port of the API too; choose another one"
            )

    @classmethod
    def from_env(cls, environ: Mapping[str, str], **overrides: object) -> Settings:
        """The settings that `environ` gives as `CAMBER_<NAME>`; `overrides` that are not None win (the command line's flags).

        An empty variable counts as not set. Raises ConfigurationError; TypeError for an override that is no setting.
        """
        names = [setting.name for setting in _ALL]
        if strangers := overrides.keys() - set(names):
            raise TypeError(f"no such setting: {', '.join(sorted(strangers))}")
        given: dict[str, Any] = {}
        for setting in _ALL:
            if (text := environ.get(variable(setting.name), "").strip()) != "":
                given[setting.name] = _read(setting.name, _kind(setting), text)
        given.update((name, value) for name, value in overrides.items() if value is not None)
        return cls(**given, warnings=tuple(_unknown_variables(environ)))

    def api_origin(self) -> str:
        """Where clients reach the API: `cloud_url`, else by `host` and `port`."""
        return self.cloud_url or local_origin(self.host, self.port)

    def site_origin(self) -> str:
        """Where the application's HTTP routes are reached: `site_url`, else by `host` and `site_port`."""
        return self.site_url or local_origin(self.host, self.site_port)


def local_origin(host: str, port: int) -> str:
    """How this machine reaches a server that listens on this host and port."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def describe() -> list[Description]:
    """Every setting as the reference page lists it, in order."""
    return [_description(setting) for setting in _ALL]


def _description(setting: Field[Any]) -> Description:
    return Description(
        name=setting.name,
        variable=variable(setting.name),
        default=_default_text(setting.default, setting.metadata["unit"]),
        unit=setting.metadata["unit"],
        allowed=_kind(setting).allowed,
        text=setting.metadata["text"],
    )


def _kind(setting: Field[Any]) -> _Kind:
    return setting.metadata["kind"]


def _read(name: str, kind: _Kind, text: str) -> object:
    try:
        return kind.read(text)
    except (ValueError, KeyError, OverflowError):
        raise _misfit(name, text) from None


def _misfit(name: str, found: object) -> ConfigurationError:
    allowed = next(_kind(setting).allowed for setting in _ALL if setting.name == name)
    if name == "database_url":  # a password may be in it
        return ConfigurationError(f"database_url ({variable(name)}) is not as it should be; allowed: {allowed}")
    return ConfigurationError(f"{name} ({variable(name)}) is {found!r}; allowed: {allowed}")


def _unknown_variables(environ: Mapping[str, str]) -> Iterator[str]:
    known = {variable(setting.name) for setting in _ALL} | COMMAND_VARIABLES
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
            hint = f"did you mean {near[0]}?" if near else "docs/reference/settings.md lists them all."
            # Only the name: the value may be a secret under a misspelt name.
            yield f"{name} is not a setting and has no effect; {hint}"


def _default_text(default: object, unit: str) -> str:
    if isinstance(default, bool):
        return "1" if default else "0"
    if unit == "bytes":
        return _bytes_text(cast(int, default))
    if isinstance(default, float):
        return f"{default:g}"
    return "" if default == () else str(default)


_ALL: Final = tuple(setting for setting in fields(Settings) if setting.metadata)
