"""Which folder is the application (api.md, "Projects")."""

from __future__ import annotations

from pathlib import Path

import pytest

from camber import ConfigurationError
from camber.functions import application_folder, find_project_root


def project(tmp_path: Path, pyproject: str | None, *folders: str) -> Path:
    if pyproject is not None:
        (tmp_path / "pyproject.toml").write_text(pyproject)
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def test_the_folder_that_is_named(tmp_path: Path) -> None:
    root = project(tmp_path, '[tool.camber]\napp = "shop"', "shop", "other/place")

    assert application_folder(root, "other/place") == root / "other/place"
    assert application_folder(root, str(root / "other")) == root / "other"
    with pytest.raises(ConfigurationError, match="There is no folder .*nowhere, but it was named on the command line"):
        application_folder(root, "nowhere")


def test_the_one_that_the_nearest_pyproject_names(tmp_path: Path) -> None:
    root = project(tmp_path, '[tool.camber]\napp = "apps/shop"', "apps/shop", "backend", "deep/er")

    assert application_folder(root) == root / "apps/shop"
    assert application_folder(root / "deep/er") == root / "apps/shop"


def test_one_that_it_names_and_that_is_not_there_is_told(tmp_path: Path) -> None:
    root = project(tmp_path, '[tool.camber]\napp = "shop"', "backend")

    with pytest.raises(
        ConfigurationError, match=r"no folder .*shop, but `\[tool.camber\] app` in .*pyproject.toml names it"
    ):
        application_folder(root)


@pytest.mark.parametrize("pyproject", [None, "", "[tool.other]\napp = 'x'", "[tool.camber]"])
def test_else_the_backend_folder(tmp_path: Path, pyproject: str | None) -> None:
    root = project(tmp_path, pyproject, "backend")

    assert application_folder(root) == root / "backend"


def test_else_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"No application found from .*: no folder was named.*Create `backend/schema.py`"
    ):
        application_folder(project(tmp_path, ""))


@pytest.mark.parametrize("pyproject", ["[tool.camber", "[tool.camber]\napp = 5", "[tool]\ncamber = 5", "tool = 5"])
def test_a_pyproject_that_makes_no_sense_is_told(tmp_path: Path, pyproject: str) -> None:
    with pytest.raises(ConfigurationError, match="pyproject.toml"):
        application_folder(project(tmp_path, pyproject, "backend"))


def test_the_project_root_is_where_the_nearest_pyproject_is(tmp_path: Path) -> None:
    root = project(tmp_path, "", "apps/shop", "apps/inner/shop")
    (root / "apps/inner/pyproject.toml").touch()

    assert find_project_root(root / "apps/shop") == root
    assert find_project_root(root / "apps/inner/shop") == root / "apps/inner"
