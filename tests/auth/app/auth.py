"""Whose tokens are taken; the tests say where the provider is and which keys the other issuer has."""

import os

from camber import Auth, CustomJwt, Oidc

auth = Auth(
    identities=[
        Oidc(domain=os.environ["PROVIDER"], application_id="convex"),
        CustomJwt(
            issuer="https://tokens.example.com", jwks=os.environ["KEYS"], algorithm="ES256", application_id="convex"
        ),
    ]
)
