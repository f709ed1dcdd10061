"""The example's two tables: whether the campaign is running, and who backed it."""

from __future__ import annotations

from typing import Literal, NotRequired

from camber import Document, define_schema, define_table


class AppState(Document):
    """The configuration: one row at most, with the key "config"."""

    key: Literal["config"]
    crowdfundingActive: bool


class Backer(Document):
    """People who backed the campaign and may claim what they backed, each once."""

    username: str
    accessCode: str
    tier: str
    usedAt: NotRequired[float]  # when it was claimed; missing: not yet


app_state = define_table("app_state", AppState, write_with="appState:set").index("by_key", ["key"], unique=True)

backers = (
    define_table("crowdfunding_backers", Backer)
    .index("by_username_code", ["username", "accessCode"], unique=True)
    .index("by_usedAt", ["usedAt"])
)

schema = define_schema(app_state, backers)
