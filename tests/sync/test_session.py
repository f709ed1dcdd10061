"""One client's conversation as plain state: what it said and what became of it go in, what is to be done and said comes out."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from camber.backend import Content
from camber.identity import ANONYMOUS, OPERATOR
from camber.sync.messages import (
    START,
    Action,
    ActionResponse,
    Authenticate,
    AuthError,
    ClientMessage,
    Connect,
    FatalError,
    Modification,
    ModifyQuerySet,
    Mutation,
    MutationResponse,
    ServerMessage,
    Transition,
    Version,
)
from camber.sync.session import (
    MAX_ACTIONS,
    MAX_ARGUMENTS_BYTES,
    MAX_MUTATIONS,
    MAX_QUERIES,
    Check,
    Close,
    Run,
    Session,
    Unwatch,
    Watch,
    Work,
)

ADMIN = Authenticate(0, "Admin", "a key")


def connected() -> Session:
    session = Session(ANONYMOUS)
    session.receive(Connect("a session"))
    return session


def session_watching(queries: dict[int, str], *, at: int) -> Session:
    """A session whose client watches these and has been told what they show at this timestamp."""
    session = connected()
    session.receive(changing(0, *(add(query_id, path) for query_id, path in queries.items())))
    session.work()
    session.moved_to(at, [(query_id, shows(0)) for query_id in queries])
    session.outgoing()
    return session


def changing(base: int, *modifications: Modification, to: int | None = None) -> ModifyQuerySet:
    return ModifyQuerySet(base, base + 1 if to is None else to, list(modifications))


def add(query_id: int, path: str = "appState:get", **more: Any) -> Modification:
    return Modification("Add", query_id, path, **more)


def remove(query_id: int) -> Modification:
    return Modification("Remove", query_id)


def shows(value: object) -> Content:
    return Content(msgspec.json.encode(value))


def answer(request_id: int, *, at: int | None) -> MutationResponse:
    return MutationResponse(request_id, at, b"null" if at else None, None if at else "no")


def values(transition: ServerMessage) -> dict[int, Any]:
    assert isinstance(transition, Transition)
    return {query_id: msgspec.json.decode(content.value or b"") for query_id, content in transition.updates}


def told(session: Session) -> str:
    """The text of the fatal error that ended the session."""
    *_, error = session.outgoing()
    assert isinstance(error, FatalError)
    assert session.is_over
    assert session.work()[-1] == Close(1000, "")
    return error.error


def after(*messages: ClientMessage) -> Session:
    session = connected()
    for message in messages:
        session.receive(message)
    return session


# Versions


def test_the_first_transition_starts_at_nothing_and_ends_where_the_client_is() -> None:
    session = after(changing(0, add(1)))

    session.moved_to(10, [(1, shows(True))])

    (transition,) = session.outgoing()
    assert isinstance(transition, Transition)
    assert (transition.start, transition.end) == (START, Version(1, 0, 10))
    assert values(transition) == {1: True}


def test_each_transition_starts_where_the_one_before_ended() -> None:
    session = session_watching({1: "appState:get"}, at=10)
    session.moved_to(11, [(1, shows(1))])
    session.receive(changing(1, remove(1)))
    session.moved_to(11, [])
    session.moved_to(12, [])

    chain = [(m.start, m.end) for m in session.outgoing() if isinstance(m, Transition)]

    assert [start for start, _ in chain] == [Version(1, 0, 10)] + [end for _, end in chain[:-1]]
    assert [end for _, end in chain] == [Version(1, 0, 11), Version(2, 0, 11), Version(2, 0, 12)]


def test_one_transition_answers_all_that_was_said_before_it() -> None:
    session = after(changing(0, add(1)), changing(1, add(2)), changing(2, remove(1)))

    session.moved_to(10, [(2, shows(0))])

    (transition,) = session.outgoing()
    assert isinstance(transition, Transition)
    assert (transition.end, transition.removed) == (Version(3, 0, 10), (1,))


def test_a_removed_query_is_told_of_once() -> None:
    session = session_watching({1: "appState:get"}, at=10)
    session.receive(changing(1, remove(1)))
    session.moved_to(11, [])
    session.moved_to(12, [])

    first, second = session.outgoing()

    assert isinstance(first, Transition)
    assert isinstance(second, Transition)
    assert (first.removed, second.removed) == ((1,), ())


def test_versions_may_jump_forward() -> None:
    session = after(changing(0, to=7), changing(7, add(1)))

    assert (session.query_set, session.is_over) == (8, False)


# What is watched


def test_what_the_client_watches_is_work_in_its_order() -> None:
    session = after(changing(0, add(1, "a:b", args=msgspec.Raw(b"[1]"), journal="j"), add(2), remove(1)))

    assert session.work() == [Watch(1, "a:b", b"[1]", "j"), Watch(2, "appState:get", b"[{}]", None), Unwatch(1)]
    assert session.work() == []


def test_removing_what_is_not_watched_is_nothing() -> None:
    session = after(changing(0, remove(5)))

    assert (session.work(), session.is_over) == ([], False)


def test_an_id_can_be_used_again_when_it_is_free() -> None:
    session = after(changing(0, add(1)), changing(1, remove(1)), changing(2, add(1)))

    assert not session.is_over


def test_ten_thousand_queries_and_no_more() -> None:
    session = after(changing(0, *map(add, range(MAX_QUERIES))))
    assert not session.is_over
    session.receive(changing(1, remove(0), add(MAX_QUERIES)))
    assert not session.is_over

    session.receive(changing(2, add(MAX_QUERIES + 1)))

    assert told(session) == "A client can watch 10000 queries at most"


def test_the_arguments_of_all_queries_together_have_a_bound() -> None:
    half = msgspec.Raw(b'["' + b"x" * (MAX_ARGUMENTS_BYTES // 2) + b'"]')
    session = after(changing(0, add(1, args=half)), changing(1, remove(1), add(2, args=half)))
    assert not session.is_over

    session.receive(changing(2, add(3, args=half)))

    assert "too large together" in told(session)


# Mutations and actions


def test_a_mutation_shows_its_effect_no_later_than_the_transition_with_its_timestamp() -> None:
    session = session_watching({1: "appState:get"}, at=10)
    session.receive(Mutation(7, "appState:set"))

    session.mutation_ended(answer(7, at=11))
    session.moved_to(11, [(1, shows({"crowdfundingActive": True}))])

    response, transition = session.outgoing()
    assert isinstance(response, MutationResponse)
    assert isinstance(transition, Transition)
    assert (response.timestamp, transition.end.timestamp) == (11, 11)
    assert values(transition) == {1: {"crowdfundingActive": True}}


def test_mutations_run_one_at_a_time_in_the_order_in_which_they_came() -> None:
    session = after(*(Mutation(request_id, "a:b") for request_id in (3, 1, 2)))
    ran: list[Work] = []
    while work := session.work():
        assert len(work) == 1
        ran += work
        assert session.running is not None
        session.mutation_ended(answer(session.running, at=None if session.running == 1 else 11))

    assert [run.request_id for run in ran if isinstance(run, Run)] == [3, 1, 2]
    assert session.running is None


def test_actions_run_at_once_and_hold_up_nothing() -> None:
    session = after(Action(1, "a:slow"), Mutation(2, "a:b"), Action(3, "a:slow"))

    assert [(run.kind, run.request_id) for run in session.work() if isinstance(run, Run)] == [
        ("action", 1),
        ("mutation", 2),
        ("action", 3),
    ]


def test_a_call_is_made_by_whoever_spoke_when_it_was_asked_for() -> None:
    session = after(Mutation(1, "a:b"), Mutation(2, "a:b"), ADMIN)
    session.work()
    session.checked(OPERATOR)
    session.receive(Mutation(3, "a:b"))

    callers: list[object] = []
    for request_id in (1, 2, 3):
        session.mutation_ended(answer(request_id, at=11))
        callers += [run.caller for run in session.work() if isinstance(run, Run)]

    assert callers == [ANONYMOUS, OPERATOR]


def test_a_thousand_mutations_may_wait_and_one_more_sends_the_client_away() -> None:
    session = after(*(Mutation(request_id, "a:b") for request_id in range(MAX_MUTATIONS + 1)))  # one of them runs
    assert not session.is_over

    session.receive(Mutation(MAX_MUTATIONS + 1, "a:b"))

    assert session.is_over
    assert session.work()[-1] == Close(1013, "TooManyConcurrentMutations")
    assert session.outgoing() == []  # it comes back and asks again: that is no fault


def test_a_thousand_actions_may_run_and_one_that_ended_makes_room() -> None:
    session = after(*(Action(request_id, "a:b") for request_id in range(MAX_ACTIONS)))
    session.action_ended(ActionResponse(0, b"null"))
    session.receive(Action(MAX_ACTIONS, "a:b"))
    assert not session.is_over

    session.receive(Action(MAX_ACTIONS + 1, "a:b"))

    assert "1000 actions" in told(session)


# Who it is


def test_who_the_client_is_counts_when_it_has_been_found_out() -> None:
    session = after(ADMIN)
    assert session.work() == [Check(ADMIN)]
    session.moved_to(10, [])
    session.checked(OPERATOR)
    session.moved_to(11, [], clock_skew=5)

    before, behind = session.outgoing()

    assert isinstance(before, Transition)
    assert isinstance(behind, Transition)
    assert [(t.end.identity, t.clock_skew) for t in (before, behind)] == [(0, None), (1, 5)]
    assert session.caller == OPERATOR


def test_what_is_said_behind_a_token_waits_for_it_in_order() -> None:
    session = after(ADMIN, changing(0, add(1)), Mutation(1, "a:b"), Authenticate(1, "None"), Mutation(2, "a:b"))
    assert session.work() == [Check(ADMIN)]

    session.checked(OPERATOR)
    watch, run, check = session.work()
    session.checked(ANONYMOUS)
    session.mutation_ended(answer(1, at=11))

    assert watch == Watch(1, "appState:get", b"[{}]", None)
    assert isinstance(run, Run)
    assert run.caller == OPERATOR
    assert isinstance(check, Check)
    assert [(r.request_id, r.caller) for r in session.work() if isinstance(r, Run)] == [(2, ANONYMOUS)]
    assert session.identity == 2


def test_a_wrong_token_is_an_auth_error_and_what_waited_behind_it_is_not_done() -> None:
    session = after(ADMIN, Mutation(1, "a:b"))
    session.work()

    session.checked(None, "no such key")

    assert session.outgoing() == [AuthError("no such key", 0, update_attempted=True)]
    assert session.work() == [Close(1000, "")]
    assert session.identity == 0


def test_a_token_that_runs_out_is_an_auth_error_that_nobody_asked_for() -> None:
    session = after(ADMIN)
    session.work()
    session.checked(OPERATOR)

    session.expired("Convex token identity expired")

    assert session.outgoing() == [AuthError("Convex token identity expired", 1, update_attempted=False)]
    assert session.work() == [Close(1000, "")]


def test_a_thousand_messages_may_wait_behind_a_token() -> None:
    session = after(ADMIN, *(Mutation(request_id, "a:b") for request_id in range(1_000)))
    assert not session.is_over

    session.receive(Mutation(1_000, "a:b"))

    assert told(session) == "Too many messages wait for a token to be checked"


# What breaks the rules


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (changing(3), "Base version 3 passed up doesn't match the current version 0"),
        (changing(0, to=0), "Version 0 does not follow 0"),
        (Authenticate(1, "None"), "Base version 1 passed up doesn't match the current version 0"),
        (changing(0, add(1), add(1)), "Duplicate query ID: 1"),
        (changing(0, Modification("Replace", 1)), "A modification of the query set is Add or Remove, not 'Replace'"),
        (changing(0, add(1, component_path="c")), "There are no components here: leave componentPath out (it is 'c')"),
        (Mutation(1, "a:b", component_path="c"), "There are no components here: leave componentPath out (it is 'c')"),
        (Action(1, "a:b", component_path="c"), "There are no components here: leave componentPath out (it is 'c')"),
        (Connect("again"), "Connect can be said only once"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_breaks_the_rules_ends_the_conversation_with_the_reason(message: ClientMessage, text: str) -> None:
    assert told(after(message)) == text


@pytest.mark.parametrize("message", [changing(0), Mutation(0, "a:b"), Action(0, "a:b"), Authenticate(0, "None")])
def test_nothing_comes_before_connect(message: ClientMessage) -> None:
    session = Session(ANONYMOUS)
    session.receive(message)

    assert told(session) == "The first message must be Connect"


def test_nothing_is_heard_after_the_end() -> None:
    session = after(Mutation(1, "a:b"), Mutation(2, "a:b"), changing(9))
    session.work()
    session.outgoing()

    session.receive(changing(0, add(1)))
    session.mutation_ended(answer(1, at=11))

    assert session.work() == []
    assert session.outgoing() == [answer(1, at=11)]
