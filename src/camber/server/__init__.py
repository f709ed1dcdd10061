"""The HTTP door: ASGI applications for the API and the site, the admin key, and the server that runs them.

Its modules are loaded when something of them is asked for: the command line wants a key or an address far more often than a server.
"""

from __future__ import annotations

import importlib
import typing

if typing.TYPE_CHECKING:
    from camber.server.address_file import ADDRESS_FILE, Address, address_of
    from camber.server.admin_keys import SECRET_FILE, AdminKeys, admin_key, rotate_admin_key
    from camber.server.app import create_app, create_site_app
    from camber.server.logging import configure_logging
    from camber.server.ports import holder_of
    from camber.server.run import serve

__all__ = [
    "ADDRESS_FILE",
    "SECRET_FILE",
    "Address",
    "AdminKeys",
    "address_of",
    "admin_key",
    "configure_logging",
    "create_app",
    "create_site_app",
    "holder_of",
    "rotate_admin_key",
    "serve",
]

if not typing.TYPE_CHECKING:
    _MODULES = {
        "address_file": ("ADDRESS_FILE", "Address", "address_of"),
        "admin_keys": ("SECRET_FILE", "AdminKeys", "admin_key", "rotate_admin_key"),
        "app": ("create_app", "create_site_app"),
        "logging": ("configure_logging",),
        "ports": ("holder_of",),
        "run": ("serve",),
    }
    _MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        return found
