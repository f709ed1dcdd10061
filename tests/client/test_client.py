"""Calling and watching functions of a real server."""

from __future__ import annotations

import asyncio
import gc
import math
from typing import Any

import pytest

from camber import ConfigurationError, ConvexError, FunctionError, Int64, InvalidValueError
from camber.client import Client, ClientClosedError, ClientError
from tests.client.telling import a_name, soon, tell, until
from tests.wire.running_server import RunningServer


def test_queries_mutations_and_actions_give_their_results(server: RunningServer) -> None:
    name = a_name()

    async def story(client: Client) -> None:
        assert await client.query("counters:get", {"name": name}) == 0
        assert await client.mutation("counters:add", {"name": name, "by": 2}) == 2
        assert await client.query("counters:get", {"name": name}) == 2
        assert await client.action("counters:addInAction", {"name": name}) == 4
        assert await client.query("callers:me") == {"claims": None, "isOperator": False}

    tell(server.url, story)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        "text with ☃ and \0",
        5.0,
        -0.0,
        math.inf,
        Int64(2**62 + 1),
        b"\x00\xff",
        [],
        {"a": [{"b": Int64(-1)}]},
    ],
    ids=repr,
)
def test_a_value_goes_through_a_function_of_each_kind_and_back(server: RunningServer, value: object) -> None:
    name = a_name()

    async def story(client: Client) -> list[Any]:
        kept = await client.mutation("keeping:keep", {"name": name, "value": value})
        return [
            kept,
            await client.query("keeping:last", {"name": name}),
            await client.action("keeping:echo", {"value": value}),
        ]

    for result in tell(server.url, story):
        assert repr(result) == repr(value)


def test_nan_goes_through_and_a_plain_int_becomes_a_number(server: RunningServer) -> None:
    async def story(client: Client) -> tuple[Any, Any]:
        return (
            await client.action("keeping:echo", {"value": math.nan}),
            await client.action("keeping:echo", {"value": (1, 2)}),
        )

    nan, numbers = tell(server.url, story)

    assert math.isnan(nan)
    assert repr(numbers) == "[1.0, 2.0]"


@pytest.mark.parametrize(
    "data", ["A sentence", None, {"code": "No", "n": Int64(3), "raw": b"\x00", "x": [0.5]}], ids=repr
)
def test_what_a_function_refuses_with_arrives_with_its_data(server: RunningServer, data: object) -> None:
    name = a_name()

    async def story(client: Client) -> list[object]:
        failing = {"name": name, "failure": {"data": data}}
        await client.mutation("counters:setFailure", failing)
        calls = [
            client.query("counters:get", {"name": name}),
            client.mutation("counters:addAndFail", {"name": name, "data": data}),
            client.action("counters:refuseInAction", {"data": data}),
        ]
        found: list[object] = []
        for call in calls:
            with pytest.raises(ConvexError) as refused:
                await call
            found.append(refused.value.data)
        return found

    assert repr(tell(server.url, story)) == repr([data] * 3)


def test_any_other_failure_arrives_with_its_message(server: RunningServer) -> None:
    async def story(client: Client) -> None:
        with pytest.raises(FunctionError, match="the cupboard is bare"):
            await client.mutation("counters:addAndBreak", {"name": a_name()})
        with pytest.raises(FunctionError, match="the cupboard is bare"):
            await client.action("counters:breakInAction")
        with pytest.raises(FunctionError, match="Could not find public function for 'no:such'"):
            await client.query("no:such")
        with pytest.raises(FunctionError, match="missing the required field `name`"):
            await client.query("counters:get", {})

    tell(server.url, story)


def test_what_is_no_value_is_refused_before_it_is_sent(server: RunningServer) -> None:
    async def story(client: Client) -> None:
        with pytest.raises(InvalidValueError, match="2\\^53|9007199254740992"):
            await client.query("keeping:last", {"name": 2**60})
        with pytest.raises(InvalidValueError):
            client.subscribe("keeping:last", {"name": object()})
        with pytest.raises(InvalidValueError, match="too large"):
            await client.mutation("keeping:keep", {"name": "x", "value": "y" * (16 << 20)})

    tell(server.url, story)


def test_what_can_not_be_sent_is_refused_to_the_caller_and_harms_nobody_else(server: RunningServer) -> None:
    async def story(client: Client) -> None:
        with pytest.raises(UnicodeEncodeError):
            await client.query("keeping:\ud800")
        with pytest.raises(UnicodeEncodeError):
            await client.mutation("keeping:\ud800")
        with pytest.raises(UnicodeEncodeError):
            await client.set_auth("\ud800")
        with pytest.raises(TypeError):
            client.set_admin_auth("key", {"subject": object()})
        assert await client.query("callers:me") == {"claims": None, "isOperator": False}

    tell(server.url, story)


def test_a_subscription_gives_the_present_value_and_each_later_one(server: RunningServer) -> None:
    name = a_name()

    async def story(client: Client) -> None:
        seen: list[float] = []
        async for value in client.subscribe("counters:get", {"name": name}):
            seen.append(value)
            if len(seen) == 4:
                break
            await client.mutation("counters:add", {"name": name, "by": 1})
        assert seen == [0, 1, 2, 3]

    tell(server.url, story)


def test_a_subscription_sees_what_another_client_writes(server: RunningServer) -> None:
    name = a_name()

    async def story(client: Client) -> None:
        async with Client(server.url) as other, client.subscribe("counters:get", {"name": name}) as values:
            assert await anext(values) == 0
            await other.mutation("counters:add", {"name": name, "by": 5})
            assert await anext(values) == 5

    tell(server.url, story)


def test_who_watches_sees_all_that_others_write_who_watch_nothing(server: RunningServer) -> None:
    """A writer's own view moves while its commit is being told to the others: none of them may be left out."""
    name, times = a_name(), 400

    async def add(writer: Client) -> None:
        for _ in range(times):
            await writer.mutation("counters:add", {"name": name, "by": 1})

    async def story(client: Client) -> None:
        watched = client.subscribe("counters:get", {"name": name})
        async with Client(server.url) as one, Client(server.url) as another, watched as values:
            await asyncio.gather(add(one), add(another))
            await until(values, 2 * times)

    tell(server.url, story)


def test_behind_a_mutation_every_subscription_shows_what_it_wrote(server: RunningServer) -> None:
    name = a_name()

    async def story(client: Client) -> None:
        alone = client.subscribe("counters:get", {"name": name})
        together = client.subscribe("counters:both", {"names": [name, "nobody"]})
        await anext(alone)
        await anext(together)
        for count in range(1, 20):
            await client.mutation("counters:add", {"name": name, "by": 1})
            # No waiting: the values are there.
            async with asyncio.timeout(0):
                assert await anext(alone) == count
                assert await anext(together) == [count, 0]

    tell(server.url, story)


def test_all_subscriptions_show_the_same_moment(server: RunningServer) -> None:
    name = a_name()

    async def story(client: Client) -> None:
        alone = client.subscribe("counters:get", {"name": name})
        together = client.subscribe("counters:both", {"names": [name, "nobody"]})
        async with Client(server.url) as other:
            adding: asyncio.Task[None] | None = None
            value = -1
            while value != 60:
                value = await anext(alone)
                # Taken without waiting: nothing can have come between.
                assert await anext(together) == [value, 0]
                adding = adding or asyncio.create_task(_add_often(other, name, 60))
            assert adding is not None
            await adding

    tell(server.url, story)


async def _add_often(client: Client, name: str, times: int) -> None:
    for _ in range(times):
        await client.mutation("counters:add", {"name": name, "by": 1})


def test_whoever_is_slow_gets_the_newest_value(server: RunningServer) -> None:
    name = a_name()

    async def story(client: Client) -> None:
        async with client.subscribe("counters:get", {"name": name}) as values:
            assert await anext(values) == 0
            await _add_often(client, name, 25)
            assert await anext(values) == 25
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await anext(values)

    tell(server.url, story)


def test_a_subscription_raises_what_the_query_raises_and_goes_on(server: RunningServer) -> None:
    name = a_name()

    async def story(client: Client) -> None:
        values = client.subscribe("counters:get", {"name": name})
        assert await anext(values) == 0
        await client.mutation("counters:setFailure", {"name": name, "failure": {"data": {"code": "Closed"}}})
        with pytest.raises(ConvexError) as refused:
            await anext(values)
        assert refused.value.data == {"code": "Closed"}
        await client.mutation("counters:setFailure", {"name": name, "failure": "broken"})
        with pytest.raises(FunctionError, match="the counter is broken"):
            await anext(values)
        await client.mutation("counters:setFailure", {"name": name, "failure": None})
        assert await anext(values) == 0

    tell(server.url, story)


def test_each_subscriber_gets_values_of_its_own(server: RunningServer) -> None:
    name = a_name()

    async def story(client: Client) -> None:
        await client.mutation("keeping:keep", {"name": name, "value": {"list": []}})
        one, other = (client.subscribe("keeping:last", {"name": name}) for _ in range(2))
        mine = await anext(one)
        mine["list"].append("changed")
        assert await anext(other) == {"list": []}
        assert await client.query("keeping:last", {"name": name}) == {"list": []}

    tell(server.url, story)


def test_a_subscription_ends_when_its_loop_is_left(server: RunningServer) -> None:
    name = a_name()

    async def story(client: Client) -> None:
        async for _ in client.subscribe("counters:get", {"name": name}):
            break
        gc.collect()
        await soon(lambda: client._conversation.watched == 0)
        values = client.subscribe("counters:get", {"name": name})
        assert client._conversation.watched == 1
        await values.aclose()
        await values.aclose()
        assert client._conversation.watched == 0
        assert [value async for value in values] == []

    tell(server.url, story)


def test_many_subscriptions_and_requests_at_once(server: RunningServer) -> None:
    names = [a_name() for _ in range(40)]

    async def story(client: Client) -> None:
        watched = [client.subscribe("counters:get", {"name": name}) for name in names]
        adding = [client.mutation("counters:add", {"name": name, "by": 1}) for name in names for _ in range(30)]
        await asyncio.gather(*adding)
        for values in watched:
            await until(values, 30)

    tell(server.url, story)


def test_mutations_run_in_the_order_of_their_calls(server: RunningServer) -> None:
    name = a_name()

    async def story(client: Client) -> list[float]:
        return await asyncio.gather(
            *(client.mutation("counters:add", {"name": name, "by": 1}) for _ in range(50)),
        )

    assert tell(server.url, story) == [float(number) for number in range(1, 51)]


def test_a_mutation_whose_caller_gives_up_does_not_stop_the_others(server: RunningServer) -> None:
    name = a_name()

    async def story(client: Client) -> None:
        slow = asyncio.create_task(client.mutation("counters:addSlowly", {"name": name, "by": 1, "seconds": 0.5}))
        await soon(lambda: any(request.is_sent for request in client._conversation._requests.values()))
        slow.cancel()
        assert await client.mutation("counters:add", {"name": name, "by": 1}) == 2

    tell(server.url, story)


def test_requests_that_nobody_waits_for_make_room_when_they_have_ended(server: RunningServer) -> None:
    name = a_name()

    async def story(client: Client) -> None:
        await client.query("counters:get", {"name": name})
        for pause in (0, 0.02):
            adding = [asyncio.create_task(client.mutation("counters:add", {"name": name, "by": 1})) for _ in range(520)]
            await asyncio.sleep(pause)
            for task in adding:
                task.cancel()
            await asyncio.gather(*adding, return_exceptions=True)
        assert await client.mutation("counters:add", {"name": name, "by": 0}) <= 1_040
        await asyncio.gather(*(client.mutation("counters:add", {"name": name, "by": 1}) for _ in range(520)))

    tell(server.url, story)


def test_closing_ends_all_that_waits(server: RunningServer) -> None:
    async def story(client: Client) -> None:
        values = client.subscribe("counters:get", {"name": a_name()})
        await anext(values)
        waiting = [
            asyncio.create_task(client.mutation("counters:addSlowly", {"name": a_name(), "by": 1, "seconds": 0.9})),
            asyncio.create_task(client.action("keeping:echo", {"value": 1})),
            asyncio.create_task(client.query("counters:get", {"name": a_name()})),
        ]
        watching = asyncio.create_task(_all_of(values))
        await asyncio.sleep(0)
        await client.close()
        await client.close()
        for task in waiting:
            with pytest.raises(ClientClosedError, match="the client was closed"):
                await task
        assert await watching == []
        with pytest.raises(ClientClosedError):
            await client.query("counters:get", {"name": "x"})
        with pytest.raises(ClientClosedError):
            client.subscribe("counters:get", {"name": "x"})

    tell(server.url, story)


async def _all_of(values: Any) -> list[Any]:
    return [value async for value in values]


def test_when_the_server_will_not_go_on_everybody_is_told(server: RunningServer) -> None:
    async def story(client: Client) -> None:
        values = client.subscribe("counters:get", {"name": a_name()})
        await anext(values)
        # More arguments than the server keeps for one client.
        large = [client.subscribe("counters:get", {"name": f"{number}{'x' * (9 << 20)}"}) for number in range(2)]
        for subscription in (values, large[1]):
            with pytest.raises(ClientClosedError, match="the server ended the session: "):
                await until(subscription, "never")
        with pytest.raises(ClientClosedError, match="the server ended the session: "):
            await client.mutation("counters:add", {"name": a_name(), "by": 1})

    tell(server.url, story)


def test_a_client_is_used_inside_its_block() -> None:
    async def outside() -> None:
        client = Client("http://127.0.0.1:1")
        with pytest.raises(ClientError, match="async with"):
            await client.query("counters:get")
        await client.close()
        with pytest.raises(ClientClosedError):
            await client.query("counters:get")

    asyncio.run(outside())


@pytest.mark.parametrize("url", ["", "127.0.0.1:3210", "ftp://x", "http://", "http://x/?a=1", "ws://127.0.0.1:1"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="is no address of a deployment"):
        Client(url)
