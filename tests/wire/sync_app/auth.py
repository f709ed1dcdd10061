"""Whose tokens are taken: those of one issuer, whose keys the tests give; without them nobody's."""

from __future__ import annotations

import os

from camber import Auth, CustomJwt

ISSUER = "https://tokens.example.com"

auth = Auth(
    identities=[
        CustomJwt(issuer=ISSUER, jwks=keys, algorithm="ES256", application_id="convex")
        for keys in [os.environ.get("ISSUER_KEYS")]
        if keys
    ]
)
