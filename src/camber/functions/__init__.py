"""Functions of an application: declaring, finding, checking and running them."""

from camber.functions.application import Application, canonical_path
from camber.functions.calls import failed, settle_future
from camber.functions.contexts import ActionCtx, Auth, Environment, MutationCtx, QueryCtx
from camber.functions.loading import (
    application_of,
    find_project_root,
    load_application,
    make_importable,
    reload_application,
)
from camber.functions.outcomes import Done, Outcome
from camber.functions.projects import application_folder
from camber.functions.registration import (
    FunctionKind,
    RegisteredFunction,
    action,
    internal_action,
    internal_mutation,
    internal_query,
    mutation,
    query,
)
from camber.functions.requests import CallKind, checked_path, read_arguments, refusal
from camber.functions.runner import Runner
from camber.functions.running import FunctionRun, too_large
from camber.functions.system import system_functions
from camber.functions.wire_names import wire_name

__all__ = [
    "ActionCtx",
    "Application",
    "Auth",
    "CallKind",
    "Done",
    "Environment",
    "FunctionKind",
    "FunctionRun",
    "MutationCtx",
    "Outcome",
    "QueryCtx",
    "RegisteredFunction",
    "Runner",
    "action",
    "application_folder",
    "application_of",
    "canonical_path",
    "checked_path",
    "failed",
    "find_project_root",
    "internal_action",
    "internal_mutation",
    "internal_query",
    "load_application",
    "make_importable",
    "mutation",
    "query",
    "read_arguments",
    "refusal",
    "reload_application",
    "settle_future",
    "system_functions",
    "too_large",
    "wire_name",
]
