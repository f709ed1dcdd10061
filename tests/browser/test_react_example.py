"""The React example in a real browser: live values, pages of a list, optimistic updates, and a server that goes away."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.example import EXAMPLE, SECONDS, Example, Visit, code_of
from tests.wire.running_server import RunningServer
from tests.wire.test_npx_convex_run import convex_run

expect.set_options(timeout=SECONDS * 1000)

CLAIMED = '[aria-label="Codes claimed"]'
NAMES = ".backers li b"


def names(prefix: str, numbers: range) -> list[str]:
    """Usernames in the order of the list, the newest first."""
    return [f"{prefix}{number:02}" for number in reversed(numbers)]


def counts_of(visit: Visit) -> list[int]:
    """Every number of claimed codes that the page has shown since recording began."""
    return [int(text) for (text,) in visit.recorded("claimed")]


def test_the_line_of_the_seed_flips_every_open_page(example: Example, visit: Callable[..., Visit]) -> None:
    pages = [visit(), visit()]
    for page in pages:
        expect(page.campaign).to_have_text("The campaign is closed")
        expect(page.page.get_by_role("button", name="Claim")).to_be_disabled()

    switched = convex_run(EXAMPLE, example.server, "appState:set", '{"crowdfundingActive": true}')

    assert switched.returncode == 0, switched.stderr
    for page in pages:
        expect(page.campaign).to_have_text("The campaign is running")
        expect(page.page.get_by_role("button", name="Claim")).to_be_enabled()
        expect(page.connection).to_have_text("Live")

    example.run("appState:set", crowdfundingActive=False)

    for page in pages:
        expect(page.campaign).to_have_text("The campaign is closed")


def test_pages_of_a_list_follow_inserts_and_deletions_without_gap_or_double(
    example: Example, visit: Callable[..., Visit]
) -> None:
    for name in reversed(names("old", range(35))):
        example.add(name)
    page = visit()
    expect(page.names).to_have_text(names("old", range(25, 35)))
    page.record("names", NAMES)

    page.load_more()
    expect(page.names).to_have_text(names("old", range(15, 35)))

    # At the top, the last of the first page, the first of the second one, and in its middle.
    for name in ("new00", "new01", "new02"):
        example.add(name)
    for name in ("old25", "old24", "old20"):
        example.remove(name)
    gone = {"old25", "old24", "old20"}
    expected = names("new", range(3)) + [name for name in names("old", range(15, 35)) if name not in gone]
    expect(page.names).to_have_text(expected)

    page.load_more()
    expected += names("old", range(5, 15))
    expect(page.names).to_have_text(expected)

    # So many that the client cuts the first page in two.
    for name in reversed(names("newer", range(25))):
        example.add(name)
    expected = names("newer", range(25)) + expected
    expect(page.names).to_have_text(expected)

    page.load_more()
    expected += names("old", range(5))
    expect(page.names).to_have_text(expected)
    expect(page.page.get_by_role("button", name="Load more")).to_have_count(0)

    shown = page.recorded("names")
    assert len(shown) > 3  # how many moments a page sees depends on how fast it is
    for moment in shown:
        assert len(set(moment)) == len(moment)
        assert moment == sorted(moment, key=lambda name: (name[:-2] == "old", name[:-2] == "new", -int(name[-2:])))


def test_a_claim_shows_before_the_server_has_answered_and_never_flickers(
    example: Example, visit: Callable[..., Visit]
) -> None:
    example.add("ada")
    example.run("appState:set", crowdfundingActive=True)
    pages = claiming, watching = visit(), visit()
    for page in pages:
        expect(page.backer("ada")).to_contain_text("open")
        page.record("claimed", CLAIMED)
        page.record("badge", ".backers li .badge")

    example.server.process.send_signal(signal.SIGSTOP)
    try:
        claiming.claim("ada", code_of("ada"))
        expect(claiming.claimed).to_have_text("1")
        expect(claiming.backer("ada")).to_contain_text("claimed")
        expect(claiming.answer).to_have_text("Waiting for the server…")
        assert counts_of(watching) == [0]
    finally:
        example.server.process.send_signal(signal.SIGCONT)

    expect(claiming.answer).to_have_text("Welcome, ada! The code is yours.")
    for page in pages:
        expect(page.claimed).to_have_text("1")
        expect(page.backer("ada")).to_contain_text("claimed")
        assert counts_of(page) == [0, 1]
        assert page.recorded("badge") == [["open"], ["claimed"]]


def test_claims_on_two_pages_at_once_only_ever_count_up(example: Example, visit: Callable[..., Visit]) -> None:
    people = names("backer", range(12))
    for name in people:
        example.add(name)
    example.run("appState:set", crowdfundingActive=True)
    pages = visit(), visit()
    for page in pages:
        expect(page.claimed).to_have_text("0")
        page.record("claimed", CLAIMED)

    for first, second in zip(people[::2], people[1::2], strict=True):
        for page, name in zip(pages, (first, second), strict=True):
            page.claim(name, code_of(name))
        for page, name in zip(pages, (first, second), strict=True):
            expect(page.answer).to_have_text(f"Welcome, {name}! The code is yours.")

    for page in pages:
        expect(page.claimed).to_have_text("12")
        assert all(before < after for before, after in pairwise(counts_of(page))), counts_of(page)


def test_a_refused_claim_is_taken_back_and_says_why(example: Example, visit: Callable[..., Visit]) -> None:
    example.add("ada")
    example.run("appState:set", crowdfundingActive=True)
    page = visit()
    expect(page.claimed).to_have_text("0")

    page.claim("ada", "a guess")

    expect(page.answer).to_have_text("No backer has this name and code")
    expect(page.claimed).to_have_text("0")
    expect(page.backer("ada")).to_contain_text("open")
    page.may_have_complained_of("[CONVEX M(crowdfundingBackers:claim)]")


def test_a_page_survives_a_server_that_is_killed(
    example: Example, visit: Callable[..., Visit], start_server: Callable[[], RunningServer]
) -> None:
    for name in ("ada", "bob"):
        example.add(name)
    example.run("appState:set", crowdfundingActive=True)
    page = visit()
    expect(page.claimed).to_have_text("0")
    page.record("claimed", CLAIMED)

    example.server.process.kill()
    example.server.process.wait()

    expect(page.connection).to_have_text("Reconnecting…")
    expect(page.names).to_have_text(["bob", "ada"])
    page.claim("ada", code_of("ada"))
    expect(page.claimed).to_have_text("1")

    restarted = Example(start_server())
    restarted.add("eve")

    expect(page.connection).to_have_text("Live")
    expect(page.answer).to_have_text("Welcome, ada! The code is yours.")
    expect(page.names).to_have_text(["eve", "bob", "ada"])
    assert counts_of(page) == [0, 1]
    restarted.run("appState:set", crowdfundingActive=False)
    expect(page.campaign).to_have_text("The campaign is closed")
    assert restarted.run("crowdfundingBackers:counts") == {"total": 3, "claimed": 1}
    page.may_have_complained_of("WebSocket connection to")


LOOKS = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 860}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 860}},
    "phone": {"color_scheme": "light", "viewport": {"width": 360, "height": 740}},
    "phone-dark": {"color_scheme": "dark", "viewport": {"width": 360, "height": 740}},
}


@pytest.mark.parametrize("look", LOOKS)
def test_the_page_fits_a_phone_and_follows_light_and_dark(
    look: str, example: Example, visit: Callable[..., Visit], tmp_path: Path
) -> None:
    """SCREENSHOTS=folder keeps the pictures."""
    example.run("crowdfundingBackers:addSamples")
    example.add("a_very_long_username_" * 6)
    example.run("appState:set", crowdfundingActive=True)
    page = visit(**LOOKS[look])
    for name, code in (("chidi30", "DEMO-30"), ("grace27", "DEMO-27"), ("emre25", "DEMO-25")):
        page.claim(name, code)
        expect(page.answer).to_contain_text(f"Welcome, {name}!")
    expect(page.names).to_have_count(10)

    pictures = Path(os.environ.get("SCREENSHOTS", tmp_path))
    pictures.mkdir(parents=True, exist_ok=True)
    page.page.screenshot(path=pictures / f"{look}.png", full_page=True)

    wide, high, background = page.page.evaluate(
        """() => [
            document.documentElement.scrollWidth - innerWidth,
            Math.min(...[...document.querySelectorAll("button, input")].map((each) => each.clientHeight)),
            getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g).map(Number),
        ]"""
    )
    assert wide <= 0
    assert high >= 38
    assert (max(background) < 64) if "dark" in look else (min(background) > 192)
