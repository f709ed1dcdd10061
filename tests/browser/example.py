"""What a test does with the React example: open its page, read it as a visitor does, and run the campaign."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page

from tests.wire.running_server import REPOSITORY, RunningServer

EXAMPLE = REPOSITORY / "examples/react"
SECONDS = 60.0

# Notes down every text that the chosen elements have had, as often as it changed; a list where there may be several.
_RECORD = """([selector, name]) => {
    const read = () => [...document.querySelectorAll(selector)].map((element) => element.textContent);
    const seen = (window[name] = [read()]);
    new MutationObserver(() => {
        const now = read();
        if (JSON.stringify(now) !== JSON.stringify(seen.at(-1))) seen.push(now);
    }).observe(document.body, { subtree: true, childList: true, characterData: true });
}"""


@dataclass(frozen=True, slots=True)
class Example:
    """A running server of the example, seen by its operator."""

    server: RunningServer

    def run(self, path: str, **arguments: object) -> Any:
        """Call a function with the admin key, as `npx convex run` does."""
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=SECONDS)
        body = json.dumps({"path": path, "args": arguments, "format": "convex_encoded_json"})
        headers = {"Content-Type": "application/json", "Authorization": f"Convex {self.server.admin_key}"}
        try:
            connection.request("POST", "/api/function", body, headers)
            answer = json.load(connection.getresponse())
        finally:
            connection.close()
        assert answer["status"] == "success", answer
        return answer["value"]

    def add(self, username: str) -> None:
        """Put somebody on the list."""
        self.run("crowdfundingBackers:addBacker", username=username, accessCode=code_of(username), tier="Gold")

    def remove(self, username: str) -> None:
        """Take somebody off it again."""
        assert self.run("crowdfundingBackers:removeBacker", username=username, accessCode=code_of(username))


@dataclass(frozen=True, slots=True)
class Visit:
    """The page in front of one visitor."""

    page: Page
    complaints: list[str] = field(default_factory=list[str])

    @classmethod
    def to(cls, address: str, browser: Browser, **options: Any) -> Visit:
        """Open the page in a browser without a past; options are those of Playwright's `new_context`."""
        visit = cls(browser.new_context(**options).new_page())
        visit.page.set_default_timeout(SECONDS * 1000)
        visit.page.on("console", lambda message: visit.complaints.extend(_complaint(message)))
        visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        visit.page.goto(address)
        return visit

    @property
    def campaign(self) -> Locator:
        return self.page.get_by_label("Campaign", exact=True).locator(".badge")

    @property
    def claimed(self) -> Locator:
        return self.page.get_by_label("Codes claimed")

    @property
    def connection(self) -> Locator:
        return self.page.get_by_label("Connection")

    @property
    def answer(self) -> Locator:
        return self.page.get_by_label("Claim a code").get_by_role("status")

    @property
    def names(self) -> Locator:
        """The usernames on the list, from top to bottom."""
        return self.page.locator(".backers li b")

    def backer(self, username: str) -> Locator:
        return self.page.get_by_role("listitem").filter(has_text=username)

    def load_more(self) -> None:
        self.page.get_by_role("button", name="Load more").click()

    def claim(self, username: str, code: str) -> None:
        """Fill in the form and send it."""
        self.page.get_by_label("Username").fill(username)
        self.page.get_by_label("Access code").fill(code)
        self.page.get_by_role("button", name="Claim").click()

    def may_have_complained_of(self, subject: str) -> None:
        """Forget what was said about this: the browser or Convex's client says it whenever a page goes through it."""
        self.complaints[:] = [complaint for complaint in self.complaints if subject not in complaint]

    def record(self, name: str, selector: str) -> None:
        """From now on note down what these elements show."""
        self.page.evaluate(_RECORD, [selector, name])

    def recorded(self, name: str) -> list[list[str]]:
        """All that they showed, in order; first what was there when recording began."""
        return self.page.evaluate("(name) => window[name]", name)


def code_of(username: str) -> str:
    """The access code that the tests give somebody."""
    return f"CODE-{username}"


def _complaint(message: ConsoleMessage) -> list[str]:
    return [message.text] if message.type in {"error", "warning"} else []


@contextmanager
def serving_files(folder: Path) -> Iterator[str]:
    """The address at which a folder is served as it is, until the block is left."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the tests look at the page."""
