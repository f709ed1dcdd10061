"""The two lines in `.env.local` by which `npx convex` finds a deployment (protocol 6.1)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from camber.cli import env_files

URL: Final = "CONVEX_SELF_HOSTED_URL"
KEY: Final = "CONVEX_SELF_HOSTED_ADMIN_KEY"
CLOUD: Final = "CONVEX_DEPLOYMENT"

_COMMENT: Final = "Written by `camber dev`: where `npx convex` finds this deployment. The key is secret."


def remember(folder: Path, environ: Mapping[str, str], url: str, admin_key: str) -> list[str]:
    """Have `npx convex` find this deployment from this folder; returns what there is to say.

    A value that is there already stays, and so does everything else in the file.
    """
    file = folder / env_files.NAME
    there = env_files.read(file)
    wanted = {URL: url, KEY: admin_key}
    said = [_clash(place) for place, found in ((str(file), there), ("the environment", environ)) if found.get(CLOUD)]
    if said:
        return said
    others = [name for name, value in wanted.items() if there.get(name) and there[name] != value]
    if others:
        return [
            f"{file} has another {' and '.join(others)}; it stays as it is, so `npx convex` works on that deployment"
        ]
    missing = {name: value for name, value in wanted.items() if not there.get(name)}
    if missing:
        try:
            env_files.add(file, missing, _COMMENT)
        except OSError as error:
            return [f"{file} can't be written ({error.strerror}), so `npx convex` does not find this deployment"]
    said = [f"npx convex  works in this folder ({env_files.NAME} has the address and the key)"]
    if missing and _is_in_git(folder) and not _is_ignored(file):
        said.append(f"{env_files.NAME} is not ignored by git: add it to .gitignore, for the key in it opens everything")
    return said


def _clash(place: str) -> str:
    return f"{place} has {CLOUD}, with which `npx convex` refuses {URL}: nothing was written; remove it to use this deployment"


def _is_in_git(folder: Path) -> bool:
    return any((place / ".git").exists() for place in (folder, *folder.parents))


def _is_ignored(file: Path) -> bool:
    import subprocess

    try:
        asked = subprocess.run(
            ["git", "check-ignore", "-q", file.name], cwd=file.parent, check=False, capture_output=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return True
    return asked.returncode != 1
