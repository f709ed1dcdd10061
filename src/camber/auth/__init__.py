"""Who a caller is: verifying the tokens of the identity providers that an application names."""

from camber.auth.tokens import TokenVerifier, VerifiedToken

__all__ = ["TokenVerifier", "VerifiedToken"]
