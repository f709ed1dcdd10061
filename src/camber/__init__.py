"""Camber: a reactive backend in Python that every Convex client speaks to. Everything an application imports.

What is named here is loaded when it is asked for: the command line needs none of it to talk to a server.
"""

from __future__ import annotations

import importlib
import typing

if typing.TYPE_CHECKING:
    from camber.database import (
        Expression,
        Page,
        PaginationOptions,
        Query,
        RateLimit,
        RateLimitStatus,
        field,
        fixed_window,
        pagination_options_validator,
        token_bucket,
    )
    from camber.durations import days, hours, minutes, seconds
    from camber.errors import (
        ArgumentValidationError,
        CamberError,
        ConfigurationError,
        ConvexError,
        DatabaseUsageError,
        FunctionError,
        FunctionNotFoundError,
        FunctionTimeoutError,
        InvalidIdError,
        InvalidValueError,
        LimitError,
        LoadError,
        NonexistentDocumentError,
        NotUniqueError,
        QueryBuildError,
        ReturnsValidationError,
        SchemaDefinitionError,
        SchemaEnforcementError,
        SchemaMismatchError,
        UniqueIndexError,
        ValidationError,
        ValidatorDefinitionError,
        WrongKindError,
    )
    from camber.functions import (
        ActionCtx,
        MutationCtx,
        QueryCtx,
        RegisteredFunction,
        action,
        internal_action,
        internal_mutation,
        internal_query,
        mutation,
        query,
    )
    from camber.identity import Identity
    from camber.schema import Document, Schema, Table, define_schema, define_table
    from camber.values import MISSING, UNSET, Int64, RawDocument, Validator, Value, v

__all__ = [
    "MISSING",
    "UNSET",
    "ActionCtx",
    "ArgumentValidationError",
    "CamberError",
    "ConfigurationError",
    "ConvexError",
    "DatabaseUsageError",
    "Document",
    "Expression",
    "FunctionError",
    "FunctionNotFoundError",
    "FunctionTimeoutError",
    "Identity",
    "Int64",
    "InvalidIdError",
    "InvalidValueError",
    "LimitError",
    "LoadError",
    "MutationCtx",
    "NonexistentDocumentError",
    "NotUniqueError",
    "Page",
    "PaginationOptions",
    "Query",
    "QueryBuildError",
    "QueryCtx",
    "RateLimit",
    "RateLimitStatus",
    "RawDocument",
    "RegisteredFunction",
    "ReturnsValidationError",
    "Schema",
    "SchemaDefinitionError",
    "SchemaEnforcementError",
    "SchemaMismatchError",
    "Table",
    "UniqueIndexError",
    "ValidationError",
    "Validator",
    "ValidatorDefinitionError",
    "Value",
    "WrongKindError",
    "action",
    "days",
    "define_schema",
    "define_table",
    "field",
    "fixed_window",
    "hours",
    "internal_action",
    "internal_mutation",
    "internal_query",
    "minutes",
    "mutation",
    "pagination_options_validator",
    "query",
    "seconds",
    "token_bucket",
    "v",
]

if not typing.TYPE_CHECKING:
    _MODULES = {
        "database": (
            "Expression",
            "Page",
            "PaginationOptions",
            "Query",
            "RateLimit",
            "RateLimitStatus",
            "field",
            "fixed_window",
            "pagination_options_validator",
            "token_bucket",
        ),
        "durations": ("days", "hours", "minutes", "seconds"),
        "errors": (
            "ArgumentValidationError",
            "CamberError",
            "ConfigurationError",
            "ConvexError",
            "DatabaseUsageError",
            "FunctionError",
            "FunctionNotFoundError",
            "FunctionTimeoutError",
            "InvalidIdError",
            "InvalidValueError",
            "LimitError",
            "LoadError",
            "NonexistentDocumentError",
            "NotUniqueError",
            "QueryBuildError",
            "ReturnsValidationError",
            "SchemaDefinitionError",
            "SchemaEnforcementError",
            "SchemaMismatchError",
            "UniqueIndexError",
            "ValidationError",
            "ValidatorDefinitionError",
            "WrongKindError",
        ),
        "functions": (
            "ActionCtx",
            "MutationCtx",
            "QueryCtx",
            "RegisteredFunction",
            "action",
            "internal_action",
            "internal_mutation",
            "internal_query",
            "mutation",
            "query",
        ),
        "identity": ("Identity",),
        "schema": ("Document", "Schema", "Table", "define_schema", "define_table"),
        "values": ("MISSING", "UNSET", "Int64", "RawDocument", "Validator", "Value", "v"),
    }
    _MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        return found
