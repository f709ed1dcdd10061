"""Every error camber raises on purpose.

    CamberError
    ├── ConvexError                    what an application tells a client, with data
    │   └── UniqueIndexError           a unique index already holds this key
    ├── InvalidValueError              something that is no Convex value, or too large, too deep, badly named
    ├── InvalidIdError                 text that is no document id, or one of another table
    ├── ValidationError                a value that does not fit its validator
    │   ├── ArgumentValidationError    … the arguments of a function
    │   ├── ReturnsValidationError     … the result of a function
    │   └── SchemaEnforcementError     … a document of a table with a schema
    ├── ValidatorDefinitionError       a validator, shape or annotation that can't be used
    ├── SchemaDefinitionError          tables or indexes that break a rule (protocol 3.6)
    ├── SchemaMismatchError            a schema that the stored documents don't fit
    ├── DatabaseUsageError             a call on ctx.db that can't be carried out
    │   ├── QueryBuildError            a query put together against the rules (protocol 3.4)
    │   ├── NotUniqueError             unique() found several documents
    │   ├── NonexistentDocumentError   a write to a document that is not there
    │   └── InvalidCursorError         a cursor that belongs to another query
    ├── FunctionError
    │   ├── FunctionNotFoundError      no such function, or not for this caller
    │   ├── WrongKindError             a query called as a mutation, and so on
    │   ├── FunctionTimeoutError       a function ran longer than it may
    │   ├── LimitError                 a transaction read or wrote more than it may (protocol 3.11)
    │   └── ForbiddenIOError           a query or mutation reached for the outside world
    ├── LoadError                      an application that can't be loaded
    ├── ConfigurationError             settings or a command line that make no sense
    ├── RequestError                   an HTTP request that is refused, with status and code
    ├── ClientError                    camber.client can't do what it was asked
    │   ├── AuthenticationError        the server refuses a token or an admin key
    │   ├── ConnectionLostError        the connection broke while an action ran
    │   └── ClientClosedError          the client was closed, or the server won't go on with it
    └── StorageError
        ├── DataFolderError            a data file that is missing, foreign, corrupt, newer or not writable
        │   └── DataFolderInUseError   another process holds the data file
        ├── DatabaseUnreachableError   PostgreSQL can't be reached, or was lost in the middle; nothing was written
        ├── DiskFullError              nothing was written: the disk is full
        └── CommitUnknownError         whether a commit reached the disk is not known

`code` is the stable word for programs and the wire; the message is for a person; the attributes are for tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar


class CamberError(Exception):
    """The root of all errors that camber raises on purpose."""

    code: ClassVar[str] = "CamberError"

    def __init_subclass__(cls, *, code: str | None = None) -> None:
        super().__init_subclass__()
        cls.code = code or cls.__name__


class ConvexError(CamberError):
    """An application's own error: `data`, any Convex value, reaches the client as it is.

    Where the data is text it is the message too.
    """

    def __init__(self, data: object) -> None:
        super().__init__(data if isinstance(data, str) else repr(data))
        self.data = data


class UniqueIndexError(ConvexError, code="UniqueIndexViolation"):
    """The table already holds a document with this key; the transaction changed nothing.

    Which document stays in the log: to a client it would be an oracle.
    """

    def __init__(self, *, table: str, index: str) -> None:
        super().__init__({"code": self.code, "table": table, "index": index})
        self.table, self.index = table, index


class InvalidValueError(CamberError):
    """Something that is no Convex value, or one beyond the limits of protocol 1.2 and 1.3. `path` locates it (`.a[0]`)."""

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class InvalidIdError(CamberError):
    """Text that does not decode as a document id (protocol 1.6)."""


class ValidationError(CamberError):
    """A value that does not fit its validator; the message has the shape of protocol 2.3.

    `kind` is one of `MissingField`, `ExtraField`, `NoMatch`, `LiteralMismatch`, `IdTableMismatch`; `path` is like `.list[0].tags.values()`.
    """

    def __init__(self, message: str, *, path: str = "", kind: str = "NoMatch") -> None:
        super().__init__(message)
        self.path, self.kind = path, kind


class ArgumentValidationError(ValidationError):
    """The arguments of a call do not fit the function's validators."""


class ReturnsValidationError(ValidationError):
    """What a function returned does not fit its `returns` validator."""


class SchemaEnforcementError(ValidationError):
    """A document does not fit the schema of its table; nothing was written."""


class ValidatorDefinitionError(CamberError):
    """A validator, TypedDict or annotation that says something Convex can't check."""


class SchemaDefinitionError(CamberError):
    """Tables or indexes that break a rule of protocol 3.6; `rule` is Convex's short code for it."""

    def __init__(self, message: str, *, rule: str) -> None:
        super().__init__(message)
        self.rule = rule


class SchemaMismatchError(CamberError):
    """Stored documents that don't fit the schema; every misfit is listed (at most the first 1,000) and nothing was changed."""

    def __init__(self, misfits: Sequence[str], *, total: int | None = None) -> None:
        self.misfits = tuple(misfits)
        self.total = len(self.misfits) if total is None else total
        more = f"\n… and {self.total - len(self.misfits)} more" if self.total > len(self.misfits) else ""
        super().__init__("\n".join(self.misfits) + more)


class DatabaseUsageError(CamberError):
    """A call on `ctx.db` that can't be carried out; the message says what to write instead."""


class QueryBuildError(DatabaseUsageError):
    """A query put together against the rules of protocol 3.4; `rule` is Convex's short code where it has one."""

    def __init__(self, message: str, *, rule: str = "QueryBuildError") -> None:
        super().__init__(message)
        self.rule = rule


class NotUniqueError(DatabaseUsageError):
    """`unique()` found more than one document; `ids` names two of them."""

    def __init__(self, *, table: str, ids: Sequence[str]) -> None:
        listed = ", ".join(ids)
        super().__init__(f"unique() query returned more than one result from table {table}:\n [{listed}, ...]")
        self.table, self.ids = table, tuple(ids)


class NonexistentDocumentError(DatabaseUsageError, code="NonexistentDocument"):
    """A patch, replace or delete of a document that is not there."""

    def __init__(self, *, action: str, id: str) -> None:
        super().__init__(f"{action} on nonexistent document ID {id}")
        self.id = id


class InvalidCursorError(ConvexError, code="InvalidCursor"):
    """A pagination cursor of another query; clients start again from the first page when they see it (protocol 3.5)."""

    def __init__(self, detail: str) -> None:
        super().__init__({"isConvexSystemError": True, "paginationError": "InvalidCursor"})
        self.args = (f"InvalidCursor: {detail}",)


class FunctionError(CamberError):
    """A function could not be run, or not to its end."""


class FunctionNotFoundError(FunctionError):
    """No function has this path, or it is internal and the caller is not the operator."""


class WrongKindError(FunctionError):
    """A function was called as another kind than it is."""


class FunctionTimeoutError(FunctionError):
    """A function ran longer than it may; a mutation that did left nothing behind."""


class LimitError(FunctionError):
    """A transaction read or wrote more than protocol 3.11 allows; `limit` names the setting."""

    def __init__(self, message: str, *, limit: str) -> None:
        super().__init__(message)
        self.limit = limit


class ForbiddenIOError(FunctionError):
    """A query or mutation reached for the outside world; the message names what to use instead."""


class LoadError(CamberError):
    """An application that can't be loaded; `problems` lists every one found, each with its place."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class ConfigurationError(CamberError):
    """Settings or a command line that make no sense; the message says which and what is allowed."""


class RequestError(CamberError):
    """An HTTP request that is refused as a whole (protocol 4.6); functions that fail are no such thing."""

    def __init__(self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.short_code, self.message = status, code, message
        self.headers = dict(headers or {})


class ClientError(CamberError):
    """`camber.client` can't do what it was asked; functions that fail are no such thing."""


class AuthenticationError(ClientError):
    """The server refuses the token or admin key that a client shows."""


class ConnectionLostError(ClientError):
    """The connection broke while an action ran: whether it was carried out is not known."""


class ClientClosedError(ClientError):
    """The client was closed, or the server said that it won't go on with it; the message says which."""


class StorageError(CamberError):
    """The database file or server could not do what was asked."""


class DataFolderError(StorageError):
    """A data folder or file that is missing, foreign, corrupt, of a newer version or not writable; nothing was changed."""


class DataFolderInUseError(DataFolderError):
    """Another process holds the data file; `holder` says who, as far as it can be known."""

    def __init__(self, message: str, *, holder: str | None = None) -> None:
        super().__init__(message)
        self.holder = holder


class DatabaseUnreachableError(StorageError, code="DatabaseUnreachable"):
    """PostgreSQL can't be reached just now, or the connection was lost: nothing was written, and it may go through in a moment."""


class DiskFullError(StorageError, code="DiskFull"):
    """The disk is full: the transaction was rolled back and nothing of it is stored."""


class CommitUnknownError(StorageError, code="CommitUnknown"):
    """The disk or connection failed during COMMIT: whether the transaction is stored is not known."""
