"""What the package offers is what it promises, and every promised name is in the reference."""

from __future__ import annotations
import __future__

from inspect import ismodule
from pathlib import Path
from types import ModuleType

import pytest

import camber
import camber.client
import camber.testing

REFERENCE = Path(__file__).resolve().parents[1] / "docs/reference/api.md"


def offered(module: ModuleType) -> set[str]:
    """The public names of a module, without submodules and `from __future__` imports."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not ismodule(value) and not isinstance(value, __future__._Feature)
    }


@pytest.mark.parametrize("module", [camber, camber.client, camber.testing], ids=lambda module: module.__name__)
def test_a_module_offers_exactly_what_it_promises(module: ModuleType) -> None:
    for name in module.__all__:
        assert hasattr(module, name)  # names are loaded when they are asked for

    assert offered(module) == set(module.__all__)


@pytest.mark.parametrize("name", sorted({*camber.__all__, *camber.client.__all__, *camber.testing.__all__}))
def test_every_promised_name_has_an_entry_in_the_reference(name: str) -> None:
    assert f"### `{name}`" in REFERENCE.read_text()
