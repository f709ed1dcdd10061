"""`camber check`: whether the code loads, keeps to the conventions, and fits the stored data."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from camber.cli.places import (
    DATA_FOLDER,
    application_folder,
    data_folder,
    database_of_environment,
    nearest_data_folder,
)
from camber.cli.printing import counted, say, warn
from camber.errors import ConfigurationError

_SNAKE_CASE: Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_CAMEL_CASE: Final = re.compile(r"[a-z][A-Za-z0-9]*")
_WORD_START: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[_\W]+")


def check(
    app: Annotated[
        str | None, Parameter(help="The application's folder or package; without it, as `camber serve` finds it.")
    ] = None,
    /,
    *,
    data: Annotated[
        Path | None,
        Parameter(
            help="The data folder to compare with; else CAMBER_DATA, else .camber here or above. With CAMBER_DATABASE_URL, that"
            " database."
        ),
    ] = None,
    no_data: Annotated[bool, Parameter(help="Look at the code alone.", negative="")] = False,
) -> None:
    """Check the application, and its schema against the data.

    Nothing is run or changed.

    It must load, and its schema must fit the stored documents; what doesn't is
    named, and the exit code is 1. Names that don't follow the conventions are
    warned of: tables in snake_case, fields in camelCase, indexes by_ what they
    are for. A server may be running meanwhile.

    For example:

        camber check
        camber check apps/crowdfunding --data /var/lib/shop
    """
    from camber.functions import load_application

    application = load_application(application_folder(app))
    for warning in (*application.warnings, *_names_out_of_line(application.schema.to_json())):
        warn(warning)
    functions, tables = (
        counted(len(application.functions), "function"),
        counted(len(application.schema.tables), "table"),
    )
    say(f"{application.name} loads: {functions}, {tables}")
    if not no_data:
        database = database_of_environment()
        folder = data_folder(data) if database else _data_folder(data)
        changes = _changes(application, folder)
        say(f"the data in {database or folder} fits" + (":" if changes else ""))
        for change in changes:
            say(f"  the next start will {change}")


def _changes(application: Any, data: Path) -> list[str]:
    from camber.backend import changes_of_serving
    from camber.cli.progress import Progress
    from camber.settings import Settings

    with Progress() as progress:
        return changes_of_serving(application, data, settings=Settings.from_env(os.environ), on_progress=progress)


def _data_folder(given: Path | None) -> Path:
    named = given or (Path(found) if (found := os.environ.get("CAMBER_DATA")) else None)
    folder = nearest_data_folder(Path.cwd()) if named is None else named.absolute()
    if folder is None:
        looked = ", ".join(str(place / DATA_FOLDER) for place in (Path.cwd(), *Path.cwd().parents))
        raise ConfigurationError(
            f"there is no data to compare with. Looked at: --data, CAMBER_DATA, CAMBER_DATABASE_URL, {looked}."
            " --no-data looks at the code alone."
        )
    if not folder.is_dir():
        raise ConfigurationError(f"there is no data folder {folder}; --no-data looks at the code alone")
    return folder


def _names_out_of_line(schema: dict[str, Any]) -> Iterator[str]:
    """A line for every name that does not follow the conventions, with one that would."""
    for table in schema["tables"]:
        name: str = table["tableName"]
        if not _SNAKE_CASE.fullmatch(name):
            yield f'table "{name}": tables are named in snake_case, as in "{_snake_case(name)}"'
        for field in _fields_of(table["documentType"]):
            if not _CAMEL_CASE.fullmatch(field):
                yield f'table "{name}", field "{field}": fields are named in camelCase, as in "{_camel_case(field)}"'
        for index in table["indexes"]:
            if not index["indexDescriptor"].startswith("by_"):
                yield f'table "{name}", index "{index["indexDescriptor"]}": indexes are named by_ and what they are for'


def _fields_of(validator: dict[str, Any]) -> Iterator[str]:
    """The fields of a validator in export form (protocol 2.1), also those further in, each once."""
    yield from dict.fromkeys(_all_fields_of(validator))


def _all_fields_of(validator: dict[str, Any]) -> Iterator[str]:
    match validator:
        case {"type": "object", "value": fields}:
            for name, described in fields.items():
                yield name
                yield from _all_fields_of(described["fieldType"])
        case {"type": "array", "value": inner}:
            yield from _all_fields_of(inner)
        case {"type": "union", "value": members}:
            for member in members:
                yield from _all_fields_of(member)
        case {"type": "record", "values": described}:
            yield from _all_fields_of(described["fieldType"])
        case _:
            return


def _words(name: str) -> list[str]:
    return [word for word in _WORD_START.split(name) if word]


def _snake_case(name: str) -> str:
    return "_".join(word.lower() for word in _words(name))


def _camel_case(name: str) -> str:
    first, *rest = _words(name) or ["field"]
    return first.lower() + "".join(word[:1].upper() + word[1:] for word in rest)
