"""What a function logs during one run, as the lines that clients print (protocol 5.9)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from camber.values import Int64

MAX_LINES = 256
MAX_LINE_BYTES = 32_768
_TRUNCATED = " (truncated due to length)"


class RunLog:
    """`ctx.log`: each call is one line, its arguments shown as JavaScript's console would."""

    __slots__ = ("lines",)

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, *values: object) -> None:
        """Log at the plain level, like `console.log`."""
        self._add("LOG", values)

    def debug(self, *values: object) -> None:
        self._add("DEBUG", values)

    def info(self, *values: object) -> None:
        self._add("INFO", values)

    def warn(self, *values: object) -> None:
        self._add("WARN", values)

    def error(self, *values: object) -> None:
        self._add("ERROR", values)

    def _add(self, level: str, values: tuple[object, ...]) -> None:
        if not self._has_room():
            return
        text = " ".join(inspect(value) for value in values)
        if not text.isascii():
            # A half of a surrogate pair, as Python has it in texts about odd file names, can't be sent.
            text = text.encode(errors="replace").decode()
        if len(text) > MAX_LINE_BYTES // 4 and len(text.encode()) > MAX_LINE_BYTES:
            text = text.encode()[: MAX_LINE_BYTES - len(_TRUNCATED)].decode(errors="ignore") + _TRUNCATED
        self.lines.append(f"[{level}] {text}")

    def _has_room(self) -> bool:
        if len(self.lines) == MAX_LINES:
            self.lines.append(f"[ERROR] 'Log overflow: this run logged more than {MAX_LINES} lines'")
        return len(self.lines) < MAX_LINES


class ActionLog(RunLog):
    """An action's log, which also takes over what the functions said that the action called."""

    __slots__ = ("own",)

    def __init__(self) -> None:
        super().__init__()
        self.own: list[str] = []
        """Without what was taken over."""

    def take_over(self, lines: Sequence[str]) -> None:
        """The lines of a run that this one called for."""
        for line in lines:
            if not self._has_room():
                return
            self.lines.append(line)

    def _add(self, level: str, values: tuple[object, ...]) -> None:
        before = len(self.lines)
        super()._add(level, values)
        self.own += self.lines[before:]


def inspect(value: object, depth: int = 0) -> str:
    """The value as JavaScript's console shows it: text in single quotes, objects in braces."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            escaped = (
                value.replace("\\", "\\\\")
                .replace("'", "\\'")
                .replace("\n", "\\n")
                .replace("\r", "\\r")
                .replace("\t", "\\t")
            )
            return f"'{escaped}'"
        case Int64():
            return f"{int(value)}n"
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case float() if value.is_integer() and abs(value) < 1e21:
            return "-0" if str(value) == "-0.0" else str(int(value))
        case Mapping() if depth < 4:
            inner = ", ".join(f"{key}: {inspect(item, depth + 1)}" for key, item in value.items())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            return f"{{ {inner} }}" if inner else "{}"
        case bytes():
            return f"<{len(value)} bytes>"
        case Sequence() if depth < 4:
            return "[ " + ", ".join(inspect(item, depth + 1) for item in value) + " ]" if value else "[]"  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case Mapping() | Sequence():
            return "…"
        case _:
            return str(value)
