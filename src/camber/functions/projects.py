"""Which folder is the application: what the project says, or the usual place."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, cast

from camber.errors import ConfigurationError

DEFAULT_FOLDER = "backend"


def application_folder(start: Path, named: str | None = None) -> Path:
    """The application's folder: the one that is named, else `[tool.camber] app` of the nearest pyproject.toml, else `backend/`.

    Raises ConfigurationError that says where it looked.
    """
    if named is not None:
        return _existing(start / named, "it was named on the command line")
    for folder in (start, *start.parents):
        file = folder / "pyproject.toml"
        if not file.is_file():
            continue
        if (app := _app_setting(file)) is not None:
            return _existing(folder / app, f"`[tool.camber] app` in {file} names it")
        break
    if (start / DEFAULT_FOLDER).is_dir():
        return start / DEFAULT_FOLDER
    raise ConfigurationError(
        f"No application found from {start}: no folder was named, no pyproject.toml above it has `[tool.camber] app`, and there is no "
        f"folder `{DEFAULT_FOLDER}/`. Create `{DEFAULT_FOLDER}/schema.py` with `schema = define_schema(…)`, or name the folder."
    )


def _app_setting(file: Path) -> str | None:
    try:
        settings = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} can't be read: {error}") from None
    found: Any = settings
    for name in ("tool", "camber", "app"):
        if not isinstance(found, dict):
            raise ConfigurationError(f"{file}: `[tool.camber]` is a table with settings")
        found = cast("dict[str, Any]", found).get(name, {} if name != "app" else None)
    if found is not None and not isinstance(found, str):
        raise ConfigurationError(f"{file}: `[tool.camber] app` is the path of a folder, as text")
    return found


def _existing(folder: Path, why: str) -> Path:
    if not folder.is_dir():
        raise ConfigurationError(f"There is no folder {folder}, but {why}.")
    return folder
