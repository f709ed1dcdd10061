"""Snapshots, transactions, read sets, queries and commits: everything that happens to documents between a function and storage."""

from camber.database.catalog import SYSTEM_TABLES, Catalog, TableInfo
from camber.database.committer import Mutation
from camber.database.database import Database, compare_schema
from camber.database.deployment import change_value, read_value
from camber.database.expressions import Expression, field
from camber.database.handles import DatabaseReader, DatabaseWriter, Query, RunState
from camber.database.limits import Limits, Usage
from camber.database.pagination import Page, PaginationOptions, pagination_options_validator
from camber.database.rate_limits import RateLimit, RateLimitAttempt, RateLimitStatus, fixed_window, token_bucket
from camber.database.reads import Read
from camber.database.requests import RememberedResult, RequestKey, forget_expired, remember, remembered
from camber.database.transaction import Transaction
from camber.database.watchdog import Abandoned, Interrupted, Watchdog, timed_out

__all__ = [
    "SYSTEM_TABLES",
    "Abandoned",
    "Catalog",
    "Database",
    "DatabaseReader",
    "DatabaseWriter",
    "Expression",
    "Interrupted",
    "Limits",
    "Mutation",
    "Page",
    "PaginationOptions",
    "Query",
    "RateLimit",
    "RateLimitAttempt",
    "RateLimitStatus",
    "Read",
    "RememberedResult",
    "RequestKey",
    "RunState",
    "TableInfo",
    "Transaction",
    "Usage",
    "Watchdog",
    "change_value",
    "compare_schema",
    "field",
    "fixed_window",
    "forget_expired",
    "pagination_options_validator",
    "read_value",
    "remember",
    "remembered",
    "timed_out",
    "token_bucket",
]
