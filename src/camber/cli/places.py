"""Where things are: the data folder, the application's folder, and the files beside them."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

from camber.errors import ConfigurationError

DATA_FOLDER: Final = ".camber"
APPLICATION_FOLDER: Final = "backend"

_EXAMPLE: Final = (
    "To begin with one, make a folder backend/ with a schema.py in it that ends with `schema = define_schema()`,"
    " and modules with functions beside it."
)


def data_folder(given: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The data folder to serve: the one given, else CAMBER_DATA, else `.camber` in the current folder, whether it is there or not."""
    return (given or Path(environ.get("CAMBER_DATA") or DATA_FOLDER)).absolute()


def database_of_environment(environ: Mapping[str, str] = os.environ) -> str:
    """The name of the PostgreSQL database that CAMBER_DATABASE_URL names, without user and password; empty where it names none."""
    from camber.server import name_of_database

    return name_of_database(environ.get("CAMBER_DATABASE_URL", "").strip())


def nearest_data_folder(start: Path) -> Path | None:
    """The data folder in this folder or the nearest one above that has one."""
    return next((folder / DATA_FOLDER for folder in _upward(start) if (folder / DATA_FOLDER).is_dir()), None)


def nearest_file(start: Path, name: str) -> Path | None:
    """The file of this name in this folder or the nearest one above that has one."""
    return next((folder / name for folder in _upward(start) if (folder / name).is_file()), None)


def application_folder(given: str | None, *, start: Path | None = None) -> Path:
    """The application's folder: the one given (a path, or the name of a package that can be imported), else `[tool.camber] app`
    in the nearest pyproject.toml, else `backend/`. Raises ConfigurationError, which says where it was looked for.
    """
    start = start or Path.cwd()
    if given is not None:
        return _given(given, start)
    project = nearest_file(start, "pyproject.toml")
    if project is not None and (named := _app_of(project)) is not None:
        folder = project.parent / named
        if not folder.is_dir():
            raise ConfigurationError(
                f'{project} names the application "{named}" ([tool.camber] app), and there is no folder {folder}'
            )
        return folder
    places = [start, *([] if project is None else [project.parent])]
    found = next((place / APPLICATION_FOLDER for place in places if (place / APPLICATION_FOLDER).is_dir()), None)
    if found is None:
        looked = " or ".join(dict.fromkeys(str(place / APPLICATION_FOLDER) for place in places))
        raise ConfigurationError(
            "no application: none was named, no pyproject.toml here or above says [tool.camber] app, and there is no folder"
            f" {looked}. {_EXAMPLE}"
        )
    return found


def _upward(start: Path) -> Iterator[Path]:
    yield start
    yield from start.parents


def _given(text: str, start: Path) -> Path:
    folder = start / text
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ConfigurationError(f"{text} is a file; an application is a folder")
    found = _package_folder(text) if all(part.isidentifier() for part in text.split(".")) else None
    if found is None:
        raise ConfigurationError(f"there is no folder {folder}, and no package of that name. {_EXAMPLE}")
    return found


def _package_folder(name: str) -> Path | None:
    from importlib.util import find_spec

    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return None
    places = None if spec is None else spec.submodule_search_locations
    return Path(next(iter(places))) if places else None


def _app_of(project: Path) -> str | None:
    try:
        settings: dict[str, Any] = tomllib.loads(project.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{project} can't be read: {error}") from error
    tool: object = settings.get("tool")
    ours: object = cast("dict[str, object]", tool).get("camber") if isinstance(tool, dict) else None
    app: object = cast("dict[str, object]", ours).get("app") if isinstance(ours, dict) else None
    if app is not None and not isinstance(app, str):
        raise ConfigurationError(f"{project}: [tool.camber] app is the application's folder as text, not {app!r}")
    return app
