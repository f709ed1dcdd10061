"""`camber admin-key`: print the key to a deployment, or make a new one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from camber.cli import env_files
from camber.cli.places import data_folder, nearest_data_folder, nearest_file
from camber.cli.printing import note, say
from camber.errors import ConfigurationError, DataFolderError
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
            " With CAMBER_DATABASE_URL, that database, and the data folder gets a copy if it is there."
        ),
    ] = None,
) -> None:
    """Print the deployment's admin key.

    And nothing else, also while a server runs. Whoever has the key may do
    everything. It is made from a secret in the data folder, or in the
    PostgreSQL database; a missing one is made.

    For example:

        camber admin-key
        export CAMBER_ADMIN_KEY="$(camber admin-key --data /var/lib/shop)"
        camber admin-key rotate
    """
    from camber.server import admin_key, rotate_admin_key

    folder, settings = _folder(data), Settings.from_env(os.environ)
    if settings.database_url:
        _of_database(settings, folder, rotate=action == "rotate")
        return
    name = settings.instance_name
    if action == "rotate":
        _refuse_a_copy(folder)
    key = admin_key(folder, create=True, instance_name=name)
    if action == "rotate":
        old, key = key, rotate_admin_key(folder, instance_name=name)
        _tell_of_copies(old)
    say(key)


def _of_database(settings: Settings, folder: Path, *, rotate: bool) -> None:
    from camber.server import copy_shared_secret, rotate_shared_admin_key, shared_admin_key

    url, name = settings.database_url, settings.instance_name
    key = shared_admin_key(url, folder, instance_name=name)
    if rotate:
        old, key = key, rotate_shared_admin_key(url, instance_name=name)
        _tell_of_copies(old)
    say(key)
    if folder.is_dir():
        try:
            copy_shared_secret(url, folder)
        except DataFolderError as error:
            note(f"the data folder does not have the key: {error}")


def _refuse_a_copy(folder: Path) -> None:
    from camber.server import address_of

    address = address_of(folder)
    if address is not None and address.database:
        raise ConfigurationError(
            f"the server of {folder} works on {address.database}, and the key is made from a secret in there;"
            " this folder has a copy. Set CAMBER_DATABASE_URL to what the server has, and rotate again"
        )


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
