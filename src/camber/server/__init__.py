"""The HTTP door: ASGI applications for the API and the site, the admin key, and the server that runs them."""

from camber.server.admin_keys import SECRET_FILE, AdminKeys, admin_key, rotate_admin_key
from camber.server.app import create_app, create_site_app
from camber.server.logging import configure_logging
from camber.server.ports import holder_of
from camber.server.run import ADDRESS_FILE, Address, address_of, serve

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
