"""Named things of one kind: passes, exporters, tasks, criteria, links.

A registry is filled by decorators in the small files that define the things; it never guesses a name.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from .errors import ContractError, InputError

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps names to things of one kind.

    ``kind`` is the word used in messages ("recipe", "pass"); ``error`` is raised for an unknown name.
    """

    def __init__(self, kind: str, error: type[InputError] = InputError) -> None:
        self.kind = kind
        self._error = error
        self._things: dict[str, T] = {}

    def register(self, *names: str) -> Callable[[T], T]:
        """Decorator: files the thing under each of ``names`` and returns it unchanged."""

        def file(thing: T) -> T:
            for name in names:
                if name in self._things:
                    raise ContractError(f"two things are registered as {self.kind} '{name}'")
                self._things[name] = thing
            return thing

        return file

    def get(self, name: str) -> T:
        """The thing called ``name``; an unknown name raises, listing what is known."""
        try:
            return self._things[name]
        except KeyError:
            raise self._error(unknown(self.kind, name, self._things)) from None

    def find(self, name: str) -> T | None:
        """The thing called ``name``, None where there is none."""
        return self._things.get(name)

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._things))

    def __iter__(self) -> Iterator[tuple[str, T]]:
        return iter(sorted(self._things.items()))

    def __contains__(self, name: str) -> bool:
        return name in self._things


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One line for an unknown name: what was asked, the nearest, and all that is known."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    return f"unknown {kind} '{name}'{hint}; known: {', '.join(names) or 'none'}"
