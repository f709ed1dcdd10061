"""`camber admin-key`: print the key to a deployment, or make a new one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from camber.cli import env_files
from camber.cli.places import data_folder, nearest_data_folder, nearest_file
from camber.cli.printing import note, say
from camber.settings import Settings


def print_admin_key(
    action: Annotated[
        Literal["rotate"] | None, Parameter(help="rotate: make a new key; servers refuse the old one within a second.")
    ] = None,
    /,
    *,
    data: Annotated[
        Path | None,
        Parameter(
            help="The data folder. Else CAMBER_DATA, else .camber here or above; if there is none, it is made here."
        ),
    ] = None,
) -> None:
    """Print the deployment's admin key.

    And nothing else, also while a server runs. Whoever has the key may do
    everything. It is made from a secret in the data folder, which is made if
    there is none.

    For example:

        camber admin-key
        export CAMBER_ADMIN_KEY="$(camber admin-key --data /var/lib/shop)"
        camber admin-key rotate
    """
    from camber.server import admin_key, rotate_admin_key

    folder = _folder(data)
    name = Settings.from_env(os.environ).instance_name
    key = admin_key(folder, create=True, instance_name=name)
    if action == "rotate":
        old, key = key, rotate_admin_key(folder, instance_name=name)
        _tell_of_copies(old)
    say(key)


def _folder(given: Path | None) -> Path:
    if given is None and not os.environ.get("CAMBER_DATA"):
        return nearest_data_folder(Path.cwd()) or data_folder(None)
    return data_folder(given)


def _tell_of_copies(old: str) -> None:
    file = nearest_file(Path.cwd(), env_files.NAME)
    if file is not None and old.rpartition("|")[2] in file.read_text("utf-8", "replace"):
        note(
            f"{file} still has the old key: put the new one in its place, or remove the line and start `camber dev` again"
        )
