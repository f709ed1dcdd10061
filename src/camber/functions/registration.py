"""Declaring functions: the decorators, and what they make of a plain function (api.md, "Functions")."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, overload

from camber.errors import (
    ArgumentValidationError,
    LoadError,
    ReturnsValidationError,
    ValidationError,
    ValidatorDefinitionError,
)
from camber.functions.contexts import ActionCtx, MutationCtx, QueryCtx
from camber.functions.wire_names import wire_name
from camber.values import TableNames, Validator, Value, normalize, shape_validator, v

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
CtxT = TypeVar("CtxT", bound=QueryCtx | ActionCtx)

Kind = Literal["query", "mutation", "action"]
Guard = Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a handler: its names, and how a checked value is handed over (None: as it is)."""

    name: str
    wire: str
    hand_over: Callable[[Any], Any] | None


class RegisteredFunction(Generic[P, R]):
    """A function that clients can call by its path. It stays callable from Python, in the caller's own transaction."""

    def __init__(
        self,
        handler: Callable[..., Any],
        kind: Kind,
        *,
        internal: bool,
        name: str | None,
        args: Mapping[str, Validator] | Validator | None,
        returns: Mapping[str, Validator] | Validator | None,
        guards: tuple[Guard, ...],
    ) -> None:
        self.handler, self.internal, self.guards = handler, internal, guards
        self.kind: Kind = kind
        self.name = name or wire_name(handler.__name__)
        self.has_own_name = name is not None
        """Whether the name was given with `name=`."""
        self.path = ""
        """`module:name`, once the application is loaded."""
        self._given_args, self._given_returns = args, returns
        self._resolved: _Resolved | None = None
        self.__doc__ = handler.__doc__
        self.__name__ = handler.__name__
        self.__module__ = handler.__module__
        self.__wrapped__ = handler
        _check_colour(handler, kind)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if self.guards:
            if self.kind == "action":
                return self._guarded_action(*args, **kwargs)  # pyright: ignore[reportReturnType]  an awaitable, as R is
            for guard in self.guards:
                guard(args[0])
        return self.handler(*args, **kwargs)

    async def _guarded_action(self, *args: Any, **kwargs: Any) -> Any:
        for guard in self.guards:
            answer = guard(args[0])
            if inspect.isawaitable(answer):
                await answer
        return await self.handler(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.path or self.name}>"

    @property
    def args(self) -> Validator:
        """What the arguments must look like, as one object."""
        return self.resolve().args

    @property
    def returns(self) -> Validator | None:
        """What the result must look like; None where nothing is said."""
        return self.resolve().returns

    def resolve(self) -> _Resolved:
        """Read the annotations; after the modules are loaded, because they may name what is defined later. Raises LoadError."""
        if self._resolved is None:
            self._resolved = _resolve(self.handler, self.kind, self._given_args, self._given_returns)
        return self._resolved

    def checked_args(self, args: Mapping[str, Any], tables: TableNames) -> dict[str, Any]:
        """Arguments under wire names, checked, as keyword arguments of the handler. Raises ArgumentValidationError."""
        resolved = self._resolved or self.resolve()
        try:
            checked = resolved.args.check(args, tables)
        except ValidationError as error:
            raise ArgumentValidationError(str(error), path=error.path, kind=error.kind) from None
        assert isinstance(checked, dict)
        given: dict[str, Any] = {}
        for parameter in resolved.parameters:
            if parameter.wire in checked:
                value = checked[parameter.wire]
                given[parameter.name] = value if parameter.hand_over is None else parameter.hand_over(value)
        if resolved.takes_rest:
            named = set(resolved.wires.values())
            given |= {wire: value for wire, value in checked.items() if wire not in named}
        return given

    def checked_result(self, result: object, tables: TableNames) -> Value:
        """The result as a value. Raises ReturnsValidationError."""
        resolved = self._resolved or self.resolve()
        if resolved.returns is None:
            return normalize(result)
        try:
            return resolved.returns.check(result, tables)
        except ValidationError as error:
            raise ReturnsValidationError(str(error), path=error.path, kind=error.kind) from None

    def wire_args(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> dict[str, object]:
        """Arguments under Python's names as arguments under wire names. Raises TypeError where Python would."""
        resolved = self._resolved or self.resolve()
        given: Mapping[str, object] = kwargs
        if args:
            positional = dict(zip(resolved.positional, args, strict=False))
            if len(args) > len(positional):
                raise TypeError(f"{self.__name__}() takes {len(positional)} positional arguments, not {len(args)}")
            if twice := positional.keys() & kwargs.keys():
                raise TypeError(f"{self.__name__}() got `{min(twice)}` twice")
            given = {**positional, **kwargs}
        wires = resolved.wires
        return {wires.get(name, name): value for name, value in given.items()}

    @property
    def place(self) -> str:
        """Where it is written: file and line."""
        return _place(self.handler)


@dataclass(frozen=True, slots=True)
class _Resolved:
    args: Validator
    returns: Validator | None
    parameters: tuple[Parameter, ...]
    wires: Mapping[str, str]
    """The wire names of the parameters."""
    positional: tuple[str, ...]
    """The parameters that can be given without their name, in their order."""
    takes_rest: bool
    """Whether the handler takes arguments without a parameter of their own, as `**rest` under their wire names."""


class FunctionKind(Generic[CtxT]):
    """A decorator that registers a function of one kind; used bare or with names and validators."""

    def __init__(self, kind: Kind, *, internal: bool = False, guards: tuple[Guard, ...] = ()) -> None:
        self._kind: Kind = kind
        self._internal, self._guards = internal, guards

    def guarded(self, guard: Callable[[CtxT], object]) -> FunctionKind[CtxT]:
        """A kind whose functions first call this guard with their context; what it raises refuses the call.

        The guard of an action may be `async def`. Raises LoadError for one of a query or mutation that is.
        """
        if self._kind != "action" and inspect.iscoroutinefunction(guard):
            problem = f"is an `async def`, but it guards a {self._kind}, where nothing would wait for it. Drop `async`."
            raise LoadError([f"{_place(guard)}: {guard.__name__} {problem}"])
        return FunctionKind(self._kind, internal=self._internal, guards=(*self._guards, guard))

    @overload
    def __call__(
        self, handler: Callable[Concatenate[CtxT, P], R], /
    ) -> RegisteredFunction[Concatenate[CtxT, P], R]: ...
    @overload
    def __call__(
        self,
        *,
        name: str | None = None,
        args: Mapping[str, Validator] | Validator | None = None,
        returns: Mapping[str, Validator] | Validator | None = None,
    ) -> Callable[[Callable[Concatenate[CtxT, P], R]], RegisteredFunction[Concatenate[CtxT, P], R]]: ...
    def __call__(
        self,
        handler: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        args: Mapping[str, Validator] | Validator | None = None,
        returns: Mapping[str, Validator] | Validator | None = None,
    ) -> Any:
        """Register a function: `@query`, or `@query(name=..., args={...}, returns=...)`.

        Raises LoadError for the wrong colour: queries and mutations are `def`, actions `async def`.
        """

        def register(handler: Callable[..., Any]) -> RegisteredFunction[..., Any]:
            return RegisteredFunction(
                handler, self._kind, internal=self._internal, name=name, args=args, returns=returns, guards=self._guards
            )

        return register if handler is None else register(handler)


query: FunctionKind[QueryCtx] = FunctionKind("query")
mutation: FunctionKind[MutationCtx] = FunctionKind("mutation")
action: FunctionKind[ActionCtx] = FunctionKind("action")
internal_query: FunctionKind[QueryCtx] = FunctionKind("query", internal=True)
internal_mutation: FunctionKind[MutationCtx] = FunctionKind("mutation", internal=True)
internal_action: FunctionKind[ActionCtx] = FunctionKind("action", internal=True)

ActionResult = Awaitable[R]


def _check_colour(handler: Callable[..., Any], kind: Kind) -> None:
    if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
        raise LoadError(
            [f"{_place(handler)}: {handler.__name__} has a `yield` in it; a function returns its result as a whole."]
        )
    waits = inspect.iscoroutinefunction(handler)
    if waits == (kind == "action"):
        return
    if waits:
        problem = (
            f"is an `async def`, but a {kind} is a plain `def`: it only sees the database, and nothing in it waits. "
            "Drop `async` and `await`, or declare it with @action."
        )
    else:
        problem = (
            "is a plain `def`, but an action is an `async def`: it talks to the world and waits for it. "
            "Write `async def`, or declare it with @mutation or @query."
        )
    raise LoadError([f"{_place(handler)}: {handler.__name__} {problem}"])


def _place(function: Callable[..., Any]) -> str:
    code = function.__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


def _resolve(
    handler: Callable[..., Any],
    kind: Kind,
    given_args: Mapping[str, Validator] | Validator | None,
    given_returns: Mapping[str, Validator] | Validator | None,
) -> _Resolved:
    place = _place(handler)
    parameters = list(inspect.signature(handler).parameters.values())
    if not parameters or parameters[0].kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD):
        raise LoadError([f"{place}: {handler.__name__} has no first parameter for its context; write `ctx`."])
    context, *signature = parameters
    try:
        hints = typing.get_type_hints(handler, include_extras=True)
    except (NameError, TypeError, AttributeError, SyntaxError) as error:
        if given_args is None or given_returns is None:
            raise LoadError([f"{place}: the annotations of {handler.__name__} can't be read: {error}"]) from None
        hints = {}
    try:
        returns = _returns(hints, given_returns)
        takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature)
        names = [parameter for parameter in signature if parameter.kind is not parameter.VAR_KEYWORD]
        args = _args(names, hints, given_args, takes_all=takes_all)
    except ValidatorDefinitionError as error:
        raise LoadError([f"{place}: {handler.__name__}: {error}"]) from None
    _check_context(handler, kind, hints.get(context.name), place)
    _check_wire_names(handler, names, place)
    fields: Mapping[str, Validator] | None = getattr(args, "fields", None)
    if fields is not None and not takes_all:
        _check_fields(handler, names, fields, place)
    taken = tuple(
        Parameter(p.name, wire_name(p.name), _hand_over((fields or {}).get(wire_name(p.name)))) for p in names
    )
    wires = {parameter.name: parameter.wire for parameter in taken}
    positional = tuple(p.name for p in names if p.kind is p.POSITIONAL_OR_KEYWORD)
    return _Resolved(args, returns, taken, wires, positional, takes_all)


def _hand_over(validator: Validator | None) -> Callable[[Any], Any] | None:
    return None if validator is None or validator.hands_over_as_is else validator.hand_over


def _returns(hints: Mapping[str, Any], given: Mapping[str, Validator] | Validator | None) -> Validator | None:
    if given is not None:
        return given if isinstance(given, Validator) else v.object(given)
    return shape_validator(hints["return"]) if "return" in hints else None


def _args(
    parameters: list[inspect.Parameter],
    hints: Mapping[str, Any],
    given: Mapping[str, Validator] | Validator | None,
    *,
    takes_all: bool,
) -> Validator:
    if given is not None:
        return given if isinstance(given, Validator) else v.object(given)
    if takes_all and not parameters:
        return v.any()
    if takes_all:
        raise ValidatorDefinitionError("what it takes beside its named parameters is not said; write `args={...}`")
    fields: dict[str, Validator] = {}
    for parameter in parameters:
        if parameter.name not in hints:
            raise ValidatorDefinitionError(
                f"the parameter `{parameter.name}` has no annotation; write `{parameter.name}: str`, or whatever it is"
            )
        validator = shape_validator(hints[parameter.name])
        fields[wire_name(parameter.name)] = validator if parameter.default is parameter.empty else v.optional(validator)
    return v.object(fields)


def _check_context(handler: Callable[..., Any], kind: Kind, annotated: object, place: str) -> None:
    contexts: dict[Kind, type] = {"query": QueryCtx, "mutation": MutationCtx, "action": ActionCtx}
    # Mutations may say QueryCtx: theirs can do all that one can.
    if isinstance(annotated, type) and annotated in contexts.values() and not issubclass(contexts[kind], annotated):
        raise LoadError(
            [
                f"{place}: {handler.__name__} is a {kind}: its context is a {contexts[kind].__name__}, no {annotated.__name__}"
            ]
        )


def _check_fields(
    handler: Callable[..., Any], parameters: list[inspect.Parameter], fields: Mapping[str, Validator], place: str
) -> None:
    """With `args={...}`: that what is checked is what the handler takes."""
    wires = {wire_name(parameter.name): parameter for parameter in parameters}
    problems = [f"`{name}` is in its args, but it has no parameter for it" for name in fields if name not in wires]
    problems += [
        f"the parameter `{parameter.name}` has no default, but `{wire}` is not in its args or is optional there"
        for wire, parameter in wires.items()
        if parameter.default is parameter.empty and (wire not in fields or fields[wire].is_optional)
    ]
    if problems:
        raise LoadError([f"{place}: {handler.__name__}: {problem}" for problem in problems])


def _check_wire_names(handler: Callable[..., Any], parameters: list[inspect.Parameter], place: str) -> None:
    seen: dict[str, str] = {}
    for parameter in parameters:
        wire = wire_name(parameter.name)
        if wire in seen:
            raise LoadError(
                [
                    f"{place}: {handler.__name__}: the parameters `{seen[wire]}` and `{parameter.name}` both are `{wire}` on the wire"
                ]
            )
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            raise LoadError(
                [f"{place}: {handler.__name__}: `{parameter.name}` can't be given by name; arguments are always named"]
            )
        seen[wire] = parameter.name
