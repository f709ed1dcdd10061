"""The unmodified `npx convex run` against a real server of the crowdfunding application."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.wire.running_server import REPOSITORY, RunningServer, clean_environment

SOMEBODY = '{"issuer": "https://idp.test", "subject": "ada", "email": "ada@example.com", "emailVerified": true}'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder as the command line wants it: a package.json that depends on `convex`, and the package."""
    (tmp_path / "package.json").write_text(json.dumps({"private": True, "dependencies": {"convex": "*"}}))
    (tmp_path / "node_modules").symlink_to(REPOSITORY / "node_modules")
    return tmp_path


def convex_run(project: Path, server: RunningServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`npx convex run` with these arguments. With CI set the command line reports nothing to anybody."""
    environment = clean_environment() | {
        "CI": "1",
        "npm_config_offline": "true",
        "CONVEX_SELF_HOSTED_URL": server.url,
        "CONVEX_SELF_HOSTED_ADMIN_KEY": server.admin_key,
    }
    command = ["npx", "convex", "run", *arguments]
    return subprocess.run(
        command, cwd=project, env=environment, check=False, capture_output=True, text=True, timeout=60
    )


def test_the_lines_of_the_seed_work_as_printed(project: Path, crowdfunding_server: RunningServer) -> None:
    switched = convex_run(project, crowdfunding_server, "appState:set", '{"crowdfundingActive": true}')
    state = convex_run(project, crowdfunding_server, "appState:get")
    added = convex_run(
        project,
        crowdfunding_server,
        "crowdfundingBackers:addBacker",
        '{"username": "user123", "accessCode": "ABC123", "tier": "Gold"}',
    )

    assert (switched.returncode, switched.stdout.strip()) == (0, ""), switched.stderr
    assert json.loads(state.stdout)["crowdfundingActive"] is True
    assert json.loads(added.stdout)["success"] is True


def test_wrong_arguments_end_with_a_message_and_exit_code_1(project: Path, crowdfunding_server: RunningServer) -> None:
    result = convex_run(project, crowdfunding_server, "appState:set", '{"crowdfundingActive": "yes"}')

    assert result.returncode == 1
    assert 'Failed to run function "appState:set":' in result.stderr
    assert "ArgumentValidationError" in result.stderr
    assert ".crowdfundingActive" in result.stderr


def test_somebody_who_is_no_admin_is_not_authorized(project: Path, crowdfunding_server: RunningServer) -> None:
    result = convex_run(
        project, crowdfunding_server, "appState:set", '{"crowdfundingActive": false}', "--identity", SOMEBODY
    )

    assert result.returncode == 1
    assert "Not authorized" in result.stderr


def test_a_wrong_admin_key_ends_with_exit_code_1(project: Path, crowdfunding_server: RunningServer) -> None:
    result = convex_run(
        project, crowdfunding_server, "appState:get", "--url", crowdfunding_server.url, "--admin-key", "wrong|00"
    )

    assert result.returncode == 1
    assert "The provided deploy key was invalid" in result.stderr
