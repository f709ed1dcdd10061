"""The pages of the documentation and the fenced blocks on them.

What a block is for can be seen on the page itself:

- ```python (or toml, js …) whose first line is a comment with a path, `# backend/schema.py`, is part of that file. Blocks with one
  path make one file, in their order.
- Other ```python blocks of a page are one program, in their order.
- ```console holds commands after `$ ` and what they print; `…` stands for anything.
- ```jsx is quoted from an example, word for word.
- ```python no-run is not run; the reason stands behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

PAGES = sorted(
    [
        *REPOSITORY.glob("*.md"),
        *REPOSITORY.glob("docs/**/*.md"),
        *REPOSITORY.glob("benchmarks/*.md"),
        *REPOSITORY.glob("examples/*/*.md"),
    ],
    key=lambda page: (page.parent != REPOSITORY, page),
)

_FENCE = re.compile(r"^(?P<indent> *)(?P<marks>`{3,})(?P<info>[^`\n]*)$")
_TITLE = re.compile(r"^(?:#|//) (?P<path>[\w./-]+\.\w+)$")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. `line` is where its text begins on the page, counted from 1."""

    page: Path
    line: int
    language: str
    words: tuple[str, ...]
    text: str

    @property
    def title(self) -> str | None:
        """The file this is a part of."""
        found = _TITLE.match(self.text.split("\n", 1)[0])
        return found["path"] if found else None

    @property
    def is_run(self) -> bool:
        """Whether it is Python that must work as it stands."""
        return self.language == "python" and "no-run" not in self.words


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    return list(_blocks(page))


def name_of(page: Path) -> str:
    """The page's path in the repository."""
    return str(page.relative_to(REPOSITORY))


def is_quotation(block: Block) -> bool:
    """Whether the block is the code of an application or an example of this repository, word for word."""
    return any(block.text in source for source in _SOURCES)


def files_of(page: Path) -> dict[str, str]:
    """The files that the page's titled blocks make, by path. Lines stand where they stand on the page, so that errors lead there."""
    files: dict[str, str] = {}
    for block in blocks_of(page):
        if (title := block.title) is not None and not is_quotation(block):
            before = files.get(title, "")
            gap = "\n" * (block.line - 1 - before.count("\n")) if title.endswith(".py") else ""
            files[title] = before + gap + block.text
    return files


def _blocks(page: Path) -> Iterator[Block]:
    lines = iter(enumerate(page.read_text(encoding="utf-8").split("\n"), 1))
    for number, line in lines:
        if (opening := _FENCE.match(line)) is None:
            continue
        language, *words = opening["info"].split() or [""]
        indent, inside = len(opening["indent"]), []
        for _, text in lines:
            if text.strip() == opening["marks"]:
                break
            inside.append(text[indent:])
        else:
            raise AssertionError(f"{name_of(page)}:{number}: this block does not end")
        yield Block(page, number + 1, language, tuple(words), "\n".join(inside) + "\n")


_QUOTED = [
    *REPOSITORY.glob("apps/**/*.py"),
    *REPOSITORY.glob("examples/*/backend/*.py"),
    *REPOSITORY.glob("examples/*/src/*.js*"),
]
_SOURCES = [path.read_text(encoding="utf-8") for path in sorted(_QUOTED)]
