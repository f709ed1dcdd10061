"""How long until 200 people who claim the same backer at the same moment all have their answer?"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import contenders
from contenders import Server
from load import request, use_generator_core
from rounds import ROUNDS, print_ratio, print_table, span

PEOPLE = 200


def main() -> None:
    use_generator_core()
    with contenders.camber() as camber, contenders.fastapi() as fastapi:
        camber.run("appState:set", {"crowdfundingActive": True})
        fastapi.call("PUT", "/app-state", {"crowdfundingActive": True})
        times: dict[Server, list[float]] = {camber: [], fastapi: []}
        # The first round warms up and is left out.
        for number in range(ROUNDS + 1):
            for server, claims in ((camber, camber_claims), (fastapi, fastapi_claims)):
                times[server].append(seconds_until_all_answered(server, claims, number))

    ours, theirs = times[camber][1:], times[fastapi][1:]
    rows = {"Camber": [span([s * 1000 for s in ours])], "FastAPI": [span([s * 1000 for s in theirs])]}
    print_table(f"{PEOPLE} concurrent claims of one token", ["ms until all are answered"], rows)
    print_ratio("time against FastAPI", ours, theirs, at_most=0.2)


def seconds_until_all_answered(server: Server, claims: Callable[[Server, int], Sequence[bytes]], number: int) -> float:
    """One backer, one token, all of them at once: exactly one gets it."""
    requests = claims(server, number)
    with server.connections(PEOPLE) as connections:
        connections.all_of([request("GET", "/healthz")] * PEOPLE)  # everybody is connected before the race begins
        load = connections.all_of(requests, success=b'"sessionId"')
    if load.failures != PEOPLE - 1 or b"already been used" not in load.last_failure:
        raise RuntimeError(f"{server.name}: {PEOPLE - load.failures} winners; {load.last_failure!r}")
    return load.seconds


def people(number: int) -> list[tuple[str, str]]:
    """Subject and e-mail of people who have not been here before."""
    return [(f"person-{number}-{n}", f"person-{number}-{n}@example.com") for n in range(PEOPLE)]


def camber_claims(server: Server, number: int) -> list[bytes]:
    """Everybody's request for a backer who was verified just now."""
    credentials = {"username": f"ada{number}", "accessCode": "ABC123"}
    server.run("crowdfundingBackers:addBacker", {**credentials, "tier": "Gold"})
    verified = server.run("crowdfundingBackers:verifyBacker", credentials)
    args = {"crowdfundingBackerId": verified["backerId"], "crowdfundingBackerToken": verified["claimToken"]}
    return [server.function_request("users:ensureAppUser", args, identity=identity(*who)) for who in people(number)]


def identity(subject: str, email: str) -> dict[str, object]:
    issuer = "https://idp.test"
    return {
        "issuer": issuer,
        "subject": subject,
        "tokenIdentifier": f"{issuer}|{subject}",
        "email": email,
        "emailVerified": True,
    }


def fastapi_claims(server: Server, number: int) -> list[bytes]:
    """Everybody's request for a backer who was verified just now."""
    credentials = {"username": f"ada{number}", "accessCode": "ABC123"}
    server.call("POST", "/backers", {**credentials, "tier": "Gold"})
    verified = server.call("POST", "/verify", credentials)
    claim = {"crowdfundingBackerId": verified["backerId"], "crowdfundingBackerToken": verified["claimToken"]}
    body = json.dumps(claim).encode()
    return [
        request("POST", "/users/ensure", body, [("X-User", who), ("X-Email", email)]) for who, email in people(number)
    ]


if __name__ == "__main__":
    main()
