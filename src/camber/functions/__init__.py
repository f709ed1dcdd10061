"""Functions of an application: declaring, finding, checking and running them."""

from camber.functions.application import Application, canonical_path
from camber.functions.calls import failed, settle_future
from camber.functions.contexts import ActionCtx, CallerAuth, Environment, MutationCtx, QueryCtx
from camber.functions.identity_providers import (
    KEY_TYPES,
    Auth,
    CustomJwt,
    IdentityProvider,
    Oidc,
    canonical_issuer,
    check_url,
    decode_data_url,
)
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
    "KEY_TYPES",
    "ActionCtx",
    "Application",
    "Auth",
    "CallKind",
    "CallerAuth",
    "CustomJwt",
    "Done",
    "Environment",
    "FunctionKind",
    "FunctionRun",
    "IdentityProvider",
    "MutationCtx",
    "Oidc",
    "Outcome",
    "QueryCtx",
    "RegisteredFunction",
    "Runner",
    "action",
    "application_folder",
    "application_of",
    "canonical_issuer",
    "canonical_path",
    "check_url",
    "checked_path",
    "decode_data_url",
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
