"""Which checks a function gets while tests run: jaxtyping's where its signature has shapes, beartype's alone elsewhere.

jaxtyping would wrap every function and remember the axes of each call, which took much of the time for functions that have none. Functions
within functions are left alone: each call would compile the checks anew, and drawing, which has one, took eight times as long.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import FunctionType
from typing import Any, get_args, get_type_hints

import jaxtyping
from beartype import BeartypeConf, beartype

_WHOLE = jaxtyping.jaxtyped
_PLAIN = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=TypeError))  # an int is a float, as for type checkers


def lighten() -> None:
    """Let jaxtyping's import hook, which looks for this name, decorate so; before any module of ours is imported."""
    jaxtyping.jaxtyped = _checked


def _checked(*, typechecker: Any) -> Callable[[Any], Any]:
    whole = _WHOLE(typechecker=typechecker)

    def decorated(thing: Any) -> Any:
        if isinstance(thing, type):
            if dataclasses.is_dataclass(thing) and isinstance(vars(thing).get("__init__"), FunctionType):
                thing.__init__ = decorated(thing.__init__)
            return thing
        if not isinstance(thing, FunctionType):
            return whole(thing)
        if "<locals>" in thing.__qualname__:
            return thing
        hints = {name: _hint(hint, thing) for name, hint in thing.__annotations__.items()}
        if any(map(_has_shape, hints.values())):
            return whole(thing)
        thing.__annotations__ = hints
        return _PLAIN(thing)

    return decorated


def _hint(hint: Any, function: FunctionType) -> Any:
    """What an annotation says; what is imported for the type checker alone says anything, as it does to jaxtyping."""

    def taking(value: Any) -> None: ...

    taking.__annotations__["value"] = hint
    try:
        return get_type_hints(taking, function.__globals__, include_extras=True)["value"]
    except Exception:
        return Any


def _has_shape(hint: Any) -> bool:
    return "jaxtyping" in getattr(hint, "__module__", "") or any(map(_has_shape, get_args(hint)))
