"""`camber env`: environment variables of the deployment."""

from __future__ import annotations

from pathlib import Path

from tests.cli.commands import camber


def test_a_variable_is_set_listed_read_by_functions_and_removed(deployment: Path) -> None:
    before = camber(deployment, "run", "settings:motto")
    camber(deployment, "env", "set", "MOTTO", "festina lente")
    camber(deployment, "env", "set", "ABC", "x=y")
    listed = camber(deployment, "env", "list")
    one = camber(deployment, "env", "get", "MOTTO")
    during = camber(deployment, "run", "settings:motto")
    removed = camber(deployment, "env", "remove", "MOTTO")
    after = camber(deployment, "env", "get", "MOTTO")

    assert (before.out, during.out) == ('"none"\n', '"festina lente"\n')
    assert (listed.code, listed.out) == (0, "ABC=x=y\nMOTTO=festina lente\n"), listed
    assert one.out == "festina lente\n"
    assert (removed.code, removed.out) == (0, ""), removed
    assert (after.code, after.out) == (1, ""), after
    assert 'Environment variable "MOTTO" not found' in after.err


def test_a_value_can_come_from_stdin(deployment: Path) -> None:
    camber(deployment, "env", "set", "KEY", "-", stdin="-----BEGIN-----\nabc\n")

    assert camber(deployment, "env", "get", "KEY").out == "-----BEGIN-----\nabc\n"


def test_a_value_may_begin_with_a_hyphen(deployment: Path) -> None:
    camber(deployment, "env", "set", "OFFSET", "-5")

    assert camber(deployment, "env", "get", "OFFSET").out == "-5\n"


def test_a_bad_name_is_refused(deployment: Path) -> None:
    result = camber(deployment, "env", "set", "1ST", "x")

    assert (result.code, result.out) == (1, ""), result
    assert "'1ST' is no name for an environment variable" in result.err
