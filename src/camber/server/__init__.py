"""The HTTP door: ASGI applications for the API and the site, the admin key, and the server that runs them.

Its modules are loaded when something of them is asked for: the command line wants a key or an address far more often than a server.
"""

from __future__ import annotations

import importlib
import typing

if typing.TYPE_CHECKING:
    from camber.server.address_file import ADDRESS_FILE, Address, address_of, name_of_database
    from camber.server.admin_keys import SECRET_FILE, AdminKeys, SecretFile, admin_key, check_secret, rotate_admin_key
    from camber.server.app import create_app, create_site_app
    from camber.server.logging import configure_logging
    from camber.server.parent_process import parent_process
    from camber.server.ports import holder_of
    from camber.server.reloaded import Reloaded
    from camber.server.reloading import Reloader
    from camber.server.run import serve
    from camber.server.shared_secret import copy_shared_secret, rotate_shared_admin_key, shared_admin_key
    from camber.server.signals import Hangups
    from camber.server.workers import serve_with_workers

__all__ = [
    "ADDRESS_FILE",
    "SECRET_FILE",
    "Address",
    "AdminKeys",
    "Hangups",
    "Reloaded",
    "Reloader",
    "SecretFile",
    "address_of",
    "admin_key",
    "check_secret",
    "configure_logging",
    "copy_shared_secret",
    "create_app",
    "create_site_app",
    "holder_of",
    "name_of_database",
    "parent_process",
    "rotate_admin_key",
    "rotate_shared_admin_key",
    "serve",
    "serve_with_workers",
    "shared_admin_key",
]

if not typing.TYPE_CHECKING:
    _MODULES = {
        "address_file": ("ADDRESS_FILE", "Address", "address_of", "name_of_database"),
        "admin_keys": ("SECRET_FILE", "AdminKeys", "SecretFile", "admin_key", "check_secret", "rotate_admin_key"),
        "app": ("create_app", "create_site_app"),
        "logging": ("configure_logging",),
        "parent_process": ("parent_process",),
        "ports": ("holder_of",),
        "reloaded": ("Reloaded",),
        "reloading": ("Reloader",),
        "run": ("serve",),
        "shared_secret": ("copy_shared_secret", "rotate_shared_admin_key", "shared_admin_key"),
        "signals": ("Hangups",),
        "workers": ("serve_with_workers",),
    }
    _MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        return found
