"""What goes wrong while a value is walked: the fault travels up and collects its path on the way."""

from __future__ import annotations

from abc import ABC, abstractmethod

from camber.errors import CamberError, InvalidValueError


class Fault(Exception, ABC):
    """Raised inside a walk, never out of this package: each container on the way up adds its step.

    Building the path only when something is wrong keeps the walk of good values cheap.
    """

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[str] = []

    def path(self, prefix: str = "") -> str:
        """Where it happened, like `.list[0].tags.values()`."""
        return prefix + "".join(reversed(self.steps))

    def below(self, name: object) -> None:
        """Add the step of an object's field."""
        # What a client calls a field may be no good name, and megabytes long.
        self.steps.append(f".{str(name)[:100]}")

    @abstractmethod
    def as_error(self, prefix: str = "") -> CamberError:
        """The error to show, its path below `prefix`."""


class Invalid(Fault):
    """No Convex value, or one beyond a limit."""

    def __init__(self, message: str) -> None:
        super().__init__()
        self.message = message

    def as_error(self, prefix: str = "") -> InvalidValueError:
        path = self.path(prefix)
        return InvalidValueError(f"{self.message} (at {path})" if path else self.message, path=path)
