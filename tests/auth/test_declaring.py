"""Naming providers in auth.py: what can be said there, and what is told to who says something else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from camber import Auth, ConfigurationError, CustomJwt, LoadError, Oidc
from camber.functions import load_application, reload_application
from tests.auth.issuing import data_url, ec, key_set, rsa

KEYS = data_url(key_set(rsa()))


@pytest.mark.parametrize(
    "domain",
    [
        "https://id.example.com",
        "https://id.example.com/",
        "https://id.example.com/realms/shop",
        "https://id.example.com:8443",
        "id.example.com",
        "http://localhost:3000",
        "http://127.0.0.1:3000/",
        "http://[::1]:3000",
    ],
)
def test_a_domain_is_an_https_url_or_one_on_this_machine(domain: str) -> None:
    assert Oidc(domain, "convex").domain == domain
    assert CustomJwt(domain, KEYS).issuer == domain


@pytest.mark.parametrize(
    "domain",
    [
        "",
        " ",
        "http://id.example.com",
        "http://192.168.0.1",
        "http://127.0.0.1.example.com",
        "http://id.localhost",
        "ftp://id.example.com",
        "file:///etc/passwd",
        "https://",
        "https:///path",
        "https://id.example.com/#here",
        "https://id.example.com/?x=1",
        "https://id.example.com?",
        "https://user@id.example.com",
        "https://id.example.com:port",
        "https://[id",
        "id.example.com and more",
        "id.example.com\n",
        "https://bücher.example.com",
        None,
        5,
        b"https://id.example.com",
    ],
)
@pytest.mark.parametrize("kind", ["Oidc: domain", "CustomJwt: issuer"])
def test_another_domain_is_refused(kind: str, domain: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^{kind} .+; .+"):
        Oidc(domain, "convex") if kind.startswith("Oidc") else CustomJwt(domain, KEYS)


def test_a_password_in_a_url_is_not_shown() -> None:
    for make in (lambda url: Oidc(url, "convex"), lambda url: CustomJwt("id.example.com", url)):
        with pytest.raises(ConfigurationError) as raised:
            make("https://ada:lovelace@id.example.com")
        assert "lovelace" not in str(raised.value)


@pytest.mark.parametrize("application_id", ["", None, 5, ["convex"]])
def test_an_application_id_is_text(application_id: Any) -> None:
    with pytest.raises(ConfigurationError, match="Oidc: application_id is .+; write the audience"):
        Oidc("id.example.com", application_id)
    if application_id is not None:
        with pytest.raises(ConfigurationError, match="CustomJwt: application_id is"):
            CustomJwt("id.example.com", KEYS, application_id=application_id)


@pytest.mark.parametrize("algorithm", ["HS256", "none", "EdDSA", "", None])
def test_a_custom_token_is_signed_with_one_of_two_algorithms(algorithm: Any) -> None:
    with pytest.raises(ConfigurationError, match='allowed: "RS256" and "ES256"'):
        CustomJwt("id.example.com", KEYS, algorithm)


@pytest.mark.parametrize(
    ("jwks", "reason"),
    [
        ("http://id.example.com/keys", "jwks is 'http://id.example.com/keys'; write an https:// URL"),
        ("id.example.com/keys", "write an https:// URL"),
        (None, "write an https:// URL"),
        ("data:", "can't be read"),
        ("data:,", "can't be read"),
        ("data:;base64,!", "can't be read"),
        ("data:,[]", "without keys"),
        ("data:,{}", "without keys"),
        ('data:,{"keys":[]}', "no key of the type"),
        (data_url({"keys": [1, {}, ec().public()]}), 'no key of the type that the algorithm needs ("kty": "RSA")'),
        (data_url({"keys": [rsa().private()]}), "holds a private key"),
        ("data:," + " " * 300_000, "at most 262144 are allowed"),
    ],
)
def test_keys_that_are_none_are_refused(jwks: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"CustomJwt: .*{re.escape(reason)}"):
        CustomJwt("id.example.com", jwks)


def test_identities_are_a_list_of_providers() -> None:
    provider = Oidc("id.example.com", "convex")

    assert Auth(identities=[provider]) == Auth(identities=(provider,))
    assert Auth().identities == ()
    for wrong in (provider, "id.example.com", {"domain": "id.example.com"}, None):
        with pytest.raises(ConfigurationError, match="write a list: identities="):
            Auth(identities=wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"Oidc\(…\) and CustomJwt\(…\) can stand there"):
        Auth(identities=[provider, "id.example.com"])  # type: ignore[list-item]


@pytest.mark.parametrize("argument", ["front_end", "password", "google"])
def test_what_comes_later_is_not_taken_yet(argument: str) -> None:
    with pytest.raises(TypeError, match=argument):
        Auth(**{argument: None})  # type: ignore[arg-type]


# Loading.
SCHEMA = "from camber import define_schema\nschema = define_schema()\n"


def written(folder: Path, auth: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "schema.py").write_text(SCHEMA)
    (folder / "auth.py").write_text(auth)
    return folder


def test_an_application_has_the_providers_of_its_auth(tmp_path: Path) -> None:
    text = "from camber import Auth, Oidc\nauth = Auth(identities=[Oidc('{}.example.com', 'convex')])\n"

    assert load_application(written(tmp_path / "signing_in", text.format("a"))).identities == (
        Oidc("a.example.com", "convex"),
    )
    assert reload_application(written(tmp_path / "signing_in", text.format("b"))).identities == (
        Oidc("b.example.com", "convex"),
    )


def test_auth_may_hold_only_functions(tmp_path: Path) -> None:
    application = load_application(
        written(
            tmp_path / "signing_in",
            "from camber import QueryCtx, query\n\n@query\ndef me(ctx: QueryCtx) -> str:\n    return 'me'\n",
        )
    )

    assert application.identities == ()
    assert list(application.functions) == ["auth:me"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "auth = {'providers': []}",
            "`auth` is of type dict. In auth.py that name is for how callers sign in: auth = Auth(",
        ),
        ("def auth(): ...", "`auth` is a function."),
        ("from camber import query, QueryCtx\n@query\ndef auth(ctx: QueryCtx) -> None: ...", "`auth` is a function."),
        ("from camber import Auth\nauth = Auth", "`auth` is a function."),
        ("from camber import Auth\nsignIn = Auth()", "the Auth is called `signIn`. Call it auth: auth = Auth("),
        (
            "from camber import Auth, Oidc\nauth = Auth(identities=[Oidc('http://x.y', 'c')])",
            "Oidc: domain is 'http://x.y'",
        ),
    ],
)
def test_anything_else_called_auth_is_a_problem_with_its_place(tmp_path: Path, text: str, problem: str) -> None:
    folder = written(tmp_path / "signing_in", text)

    with pytest.raises(LoadError, match=re.escape(problem)) as raised:
        load_application(folder)
    assert raised.value.problems[0].startswith(str(folder / "auth.py"))
