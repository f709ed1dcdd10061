"""The engine's own functions, which the command lines of Convex and Camber call with the admin key (protocol 6.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from camber.database import DatabaseReader, Page, Transaction, pagination_options_validator
from camber.errors import DatabaseUsageError
from camber.functions.application import Application
from camber.functions.contexts import MutationCtx, QueryCtx
from camber.functions.environment import change_variables
from camber.functions.registration import RegisteredFunction, internal_mutation, internal_query
from camber.values import v

READABLE_SYSTEM_TABLES = ("_storage", "_scheduled_functions")


def system_functions(
    application: Application, *, url: str, site_url: str
) -> Mapping[str, RegisteredFunction[..., Any]]:
    """The system functions of a deployment that serves this application."""

    @internal_query(args={"componentId": v.optional(v.any())})
    def api_spec(_: QueryCtx, component_id: Any = None) -> Any:  # noqa: ARG001  components are Convex's
        return application.specs()

    @internal_query(args={})
    def cloud_url(_: QueryCtx) -> str:
        return url

    @internal_query(args={})
    def site(_: QueryCtx) -> str:
        return site_url

    return {
        "_system/cli/tables:default": _tables,
        "_system/cli/tableData:default": _table_data,
        "_system/cli/queryEnvironmentVariables:default": _variables,
        "_system/cli/queryEnvironmentVariables:get": _variable,
        "_system/cli/modules:apiSpec": api_spec,
        "_system/cli/queryImport:list": _no_imports,
        "_system/cli/convexUrl:cloudUrl": cloud_url,
        "_system/cli/convexUrl:siteUrl": site,
        "_system/camber/environment:update": _update_environment,
        "_system/camber/tables:describe": _describe_tables,
    }


@internal_query(args={"paginationOpts": pagination_options_validator})
def _tables(ctx: QueryCtx, pagination_opts: Any) -> Any:  # noqa: ARG001  there is one page of names
    names = sorted(found["name"] for found in ctx.db.system.query("_tables").collect() if found["name"][0] != "_")
    return {"page": [{"name": name} for name in names], "isDone": True, "continueCursor": "end"}


@internal_query(
    args={"table": v.string(), "order": v.optional(v.string()), "paginationOpts": pagination_options_validator}
)
def _table_data(ctx: QueryCtx, *, table: str, order: str = "desc", pagination_opts: Any) -> Page[Any]:
    if table.startswith("_") and table not in READABLE_SYSTEM_TABLES:
        raise DatabaseUsageError(f'The table "{table}" is the engine\'s own and is not shown.')
    if not table.startswith("_") and table not in _transaction(ctx).catalog.by_name:
        names = ", ".join(sorted(name for name in _transaction(ctx).catalog.by_name if not name.startswith("_")))
        raise DatabaseUsageError(f'There is no table "{table}". Tables: {names or "none yet"}.')
    if table not in _transaction(ctx).catalog.by_name:  # one of the system tables that come with what is not there yet
        return {"page": [], "isDone": True, "continueCursor": "end", "splitCursor": None, "pageStatus": None}
    db: DatabaseReader = ctx.db.system if table.startswith("_") else ctx.db
    return db.query(table).order(order).paginate(pagination_opts)


@internal_query(args={})
def _variables(ctx: QueryCtx) -> Any:
    return sorted(ctx.db.system.query("_environment_variables").collect(), key=lambda found: found["name"])


@internal_query(args={"name": v.string()})
def _variable(ctx: QueryCtx, *, name: str) -> Any:
    found = ctx.db.system.query("_environment_variables").with_index("by_name", name=name).unique()
    return None if found is None else {"name": found["name"], "value": found["value"]}


@internal_query(args={})
def _no_imports(_: QueryCtx) -> list[Any]:
    """Imports that still run: none. `npx convex import` asks before it begins, and is told then what to use instead."""
    return []


@internal_mutation(
    args={"changes": v.array(v.object({"name": v.string(), "value": v.optional(v.nullable(v.string()))}))},
    returns=v.null(),
)
def _update_environment(ctx: MutationCtx, *, changes: list[dict[str, Any]]) -> None:
    change_variables(_transaction(ctx), changes)


@internal_query(args={})
def _describe_tables(ctx: QueryCtx) -> Any:
    """Tables with their fields, indexes and descriptions, for `camber data`."""
    return [
        {
            "name": table.name,
            "description": table.definition.description,
            "writeWith": table.definition.write_with,
            "columns": [name for name, _ in table.layout.columns],
            "indexes": [{"name": i.name, "fields": list(i.fields[:-1]), "unique": i.unique} for i in table.own_indexes],
            "count": float(_transaction(ctx).count(table, table.by_creation_time)),
        }
        for table in sorted(_transaction(ctx).catalog.by_name.values(), key=lambda table: table.name)
        if not table.is_system
    ]


def _transaction(ctx: QueryCtx) -> Transaction:
    return ctx._run.state.transaction  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
