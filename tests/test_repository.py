"""The files of the repository install from any index on any machine: no lock names a host, no file a machine's path."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
# What .gitignore leaves out, and git's own.
NOT_OURS = {".git", ".venv", ".camber", ".env.local", "node_modules", "__pycache__", "build", "dist"}
NOT_OURS |= {".pytest_cache", ".ruff_cache", ".hypothesis"}

PACKAGE_HOST = re.compile(r"registry\.npmjs|registry\.yarnpkg|pypi\.org|pythonhosted|pypi\.python")
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:root|home|Users|work)/")


def files(folder: Path = REPOSITORY) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name in NOT_OURS:
            continue
        if path.is_dir():
            yield from files(path)
        else:
            yield path


def named(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


PYTHON_LOCKS = [path for path in files() if path.suffix == ".txt" and "requirements" in named(path)]
NODE_LOCKS = [path for path in files() if path.name == "package-lock.json"]


def test_all_locks_are_looked_at() -> None:
    assert {named(path) for path in PYTHON_LOCKS} >= {"requirements/dev.txt", "requirements/runtime.txt"}
    assert {named(path) for path in NODE_LOCKS} >= {"package-lock.json"}


@pytest.mark.parametrize("lock", PYTHON_LOCKS, ids=named)
def test_a_python_lock_pins_everything_by_hash_and_names_no_index(lock: Path) -> None:
    requirements = re.split(r"\n(?=\S)", lock.read_text())

    for requirement in requirements:
        assert re.match(r"[\w.-]+==\S+ ", requirement), requirement
        assert "--hash=sha256:" in requirement, requirement
        assert "://" not in requirement
        assert not re.search(r"--(?:index-url|extra-index-url|find-links)", requirement)


@pytest.mark.parametrize("lock", NODE_LOCKS, ids=named)
def test_a_node_lock_pins_everything_by_hash_and_names_no_registry(lock: Path) -> None:
    packages = json.loads(lock.read_text())["packages"]

    for name, package in packages.items():
        assert "resolved" not in package, name
        assert not name or package["integrity"].startswith("sha512-"), name


@pytest.mark.parametrize("folder", [path.parent for path in NODE_LOCKS], ids=named)
def test_npm_is_told_to_leave_registries_out(folder: Path) -> None:
    assert "omit-lockfile-registry-resolved=true" in (folder / ".npmrc").read_text()


def test_the_runtime_lock_is_part_of_the_one_for_development() -> None:
    runtime, development = (_pins(REPOSITORY / f"requirements/{name}.txt") for name in ("runtime", "dev"))

    assert runtime <= development


def _pins(lock: Path) -> set[str]:
    return set(re.findall(r"^[\w.-]+==\S+", lock.read_text(), re.MULTILINE))


def test_no_file_names_a_package_host_or_a_path_of_a_machine() -> None:
    for path in files():
        if path == Path(__file__):
            continue
        text = path.read_text(errors="ignore")
        for pattern in (PACKAGE_HOST, MACHINE_PATH):
            found = pattern.search(text)
            assert not found, f"{named(path)} has {found and found.group()}"
