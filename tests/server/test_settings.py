"""The settings: what can be set, how it is checked, and that the reference page lists it."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from ipaddress import ip_network
from pathlib import Path

import pytest

from camber.errors import ConfigurationError
from camber.settings import COMMAND_VARIABLES, Description, Settings, describe, local_origin

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"


def test_the_defaults() -> None:
    settings = Settings.from_env({"HOME": "/", "CAMBER_PORT": "  "})
    assert settings == Settings()
    assert (settings.host, settings.port, settings.site_port) == ("127.0.0.1", 3210, 3211)
    assert (settings.dev, settings.warnings, settings.trusted_proxies) == (False, (), ())


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("CAMBER_DEV", "1", "dev", True),
        ("CAMBER_DEV", "off", "dev", False),
        ("CAMBER_PORT", "0", "port", 0),
        ("CAMBER_MUTATION_SECONDS", "2.5", "mutation_seconds", 2.5),
        ("CAMBER_CACHE_BYTES", "1024", "cache_bytes", 1024),
        ("CAMBER_CACHE_BYTES", "64KiB", "cache_bytes", 65_536),
        ("CAMBER_CACHE_BYTES", "2 gib", "cache_bytes", 2 << 30),
        ("CAMBER_INSTANCE_NAME", "shop-1", "instance_name", "shop-1"),
        ("CAMBER_CLOUD_URL", "https://api.example.com/", "cloud_url", "https://api.example.com"),
        ("CAMBER_LOG_FORMAT", "JSON", "log_format", "json"),
        (
            "CAMBER_TRUSTED_PROXIES",
            "10.1.2.3/8, ::1",
            "trusted_proxies",
            (ip_network("10.0.0.0/8"), ip_network("::1")),
        ),
    ],
)
def test_a_variable_sets_its_setting(variable: str, text: str, name: str, value: object) -> None:
    assert getattr(Settings.from_env({variable: text}), name) == value


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("CAMBER_DEV", "maybe"),
        ("CAMBER_PORT", "http"),
        ("CAMBER_PORT", "65536"),
        ("CAMBER_PORT", "-1"),
        ("CAMBER_HOST", "a b\n"),
        ("CAMBER_MUTATION_SECONDS", "0"),
        ("CAMBER_MUTATION_SECONDS", "nan"),
        ("CAMBER_CACHE_BYTES", "1 parsec"),
        ("CAMBER_CACHE_BYTES", "1.5MiB"),
        ("CAMBER_INSTANCE_NAME", "a|b"),
        ("CAMBER_CLOUD_URL", "api.example.com"),
        ("CAMBER_CLOUD_URL", "https://api.example.com/path"),
        ("CAMBER_LOG_LEVEL", "loud"),
        ("CAMBER_TRUSTED_PROXIES", "proxy.example.com"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(variable: str, text: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Settings.from_env({variable: text})
    assert variable in str(refused.value)
    assert repr(text.strip()) in str(refused.value) or text.strip() in str(refused.value)
    assert "; allowed: " in str(refused.value)


def test_overrides_win_and_are_checked_too() -> None:
    assert Settings.from_env({"CAMBER_PORT": "1"}, port=2, host=None).port == 2
    with pytest.raises(ConfigurationError, match=r"port \(CAMBER_PORT\) is 99999; allowed: "):
        Settings.from_env({}, port=99_999)
    with pytest.raises(TypeError, match="prot"):
        Settings.from_env({}, prot=1)


def test_both_ports_can_not_be_one() -> None:
    with pytest.raises(ConfigurationError, match="CAMBER_SITE_PORT"):
        Settings(port=4000, site_port=4000)
    assert Settings(port=0, site_port=0).port == 0


def test_a_misspelt_variable_is_warned_about_without_its_value() -> None:
    (warning,) = Settings.from_env({"CAMBER_TRUSTED_PROXYS": "s3cret"}).warnings
    assert "CAMBER_TRUSTED_PROXYS" in warning
    assert "did you mean CAMBER_TRUSTED_PROXIES?" in warning
    assert "s3cret" not in warning


def test_a_stranger_is_warned_about_and_the_command_line_s_variables_are_not() -> None:
    found = Settings.from_env({"CAMBER_QQQQQ": "x", **dict.fromkeys(COMMAND_VARIABLES, "x")}).warnings
    assert [warning.split()[0] for warning in found] == ["CAMBER_QQQQQ"]


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("example.com", "http://example.com:80"),
    ],
)
def test_where_a_server_is_reached_from_its_own_machine(host: str, origin: str) -> None:
    assert local_origin(host, 80) == origin


def test_where_clients_reach_it() -> None:
    assert Settings(port=80).api_origin() == "http://127.0.0.1:80"
    assert Settings(cloud_url="https://a.example").api_origin() == "https://a.example"
    assert Settings(site_url="https://b.example").site_origin() == "https://b.example"


@pytest.mark.parametrize("setting", describe(), ids=lambda setting: setting.name)
def test_the_reference_lists_every_setting_as_it_is(setting: Description) -> None:
    default = f"`{setting.default}`" if setting.default else "empty"
    row = f"| `{setting.name}` | `{setting.variable}` | {default} | {setting.unit or '–'} | {setting.text} Allowed: {setting.allowed}. |"
    assert row in REFERENCE.read_text().splitlines()


def test_the_reference_lists_nothing_else() -> None:
    listed = [
        line.split("`")[1]
        for line in REFERENCE.read_text().splitlines()
        if line.startswith("| `") and line.count("|") == 6
    ]
    assert listed == [setting.name for setting in describe()]
    assert all(variable in REFERENCE.read_text() for variable in COMMAND_VARIABLES)
