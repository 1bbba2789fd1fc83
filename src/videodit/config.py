"""Settings: TOML and trailing `a.b=value` -> frozen dataclasses, and back to complete, commented TOML.

Settings are frozen keyword-only dataclasses whose fields are declared with `setting(default, doc)`, next to what they
configure. An absent key means the default. A union of dataclasses is chosen by its literal `kind`; an override that changes the
kind starts from the defaults of the new one. TOML has no null: where None is allowed, `"none"` says it.
What `write` prints is template, reference and record at once, and `parse` reads it back unchanged.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import sys
import textwrap
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from videodit.shapes import UserError

T = TypeVar("T")
NONE = "none"  # how a None is written where leaving the key out would not mean it


def setting(default: Any = MISSING, doc: str = "") -> Any:
    """A field of a settings dataclass, with the sentence that stands above it in a run file; without a default it is required."""
    if isinstance(default, dict):  # dataclasses take no mutable default, so every instance has a copy
        return dataclasses.field(default_factory=lambda: dict(default), metadata={"doc": doc})
    return dataclasses.field(default=default, metadata={"doc": doc})


def read(cls: type[T] | UnionType, source: str | Path, overrides: Sequence[str] = ()) -> T:
    """The settings in a TOML file, with `a.b=value` overrides on top."""
    return parse(cls, text(source), overrides, name=str(source))


def text(source: str | Path) -> str:
    """What a TOML file says."""
    try:
        return Path(source).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"There is no file {source}: give the path of a TOML file.") from None
    except (OSError, ValueError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else getattr(error, "strerror", None) or error
        raise UserError(f"{source} cannot be read ({reason}): give the path of a TOML file.") from None


def parse(cls: type[T] | UnionType, words: str, overrides: Sequence[str] = (), name: str = "the settings") -> T:
    """The settings in a TOML text, with `a.b=value` overrides on top; `name` is what errors call the text."""
    try:
        table = tomllib.loads(words)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name} is not valid TOML: {str(error) or 'it nests too deeply'}.") from None
    changes, origins = _changes(overrides)
    return _value(cls, _merge(cls, table, changes, MISSING), MISSING, _Place(source=name, root=cls, origins=origins))


def write(settings: Any) -> str:
    """Complete TOML: every field with its doc; a None that is the default is a commented-out line."""
    return "\n".join(_table_lines(settings, MISSING, "")).strip() + "\n"


# --- Types ---


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _classes(hint: Any) -> tuple[Any, ...]:
    return tuple(member for member in _members(hint) if isinstance(member, type) and dataclasses.is_dataclass(member))


@cache
def _hints(cls: Any) -> dict[str, Any]:
    """The types of what a dataclass or a NamedTuple takes, by name."""
    names = [f.name for f in dataclasses.fields(cls) if f.init] if dataclasses.is_dataclass(cls) else cls._fields
    hints = get_type_hints(cls)
    return {name: hints[name] for name in names}


def _kinds(classes: tuple[Any, ...]) -> dict[str, Any]:
    return {kind: cls for cls in classes if "kind" in _hints(cls) for kind in get_args(_hints(cls)["kind"])}


def _defaults(cls: Any, base: Any) -> dict[str, Any]:
    """What each absent key means: what `base` has if it is of this class, else the field's own default, else MISSING."""
    if type(base) is cls:
        return {name: getattr(base, name) for name in _hints(cls)}
    mine = {f.name: f for f in dataclasses.fields(cls) if f.init}
    return {name: f.default if f.default_factory is MISSING else f.default_factory() for name, f in mine.items()}


def _is_record(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields")


_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text in quotes", Path: "a path in quotes"}


def _describe(hint: Any) -> str:
    """What a type takes, in words."""
    members = [member for member in _members(hint) if member is not NoneType]
    if len(members) > 1 and len(_classes(hint)) < len(members):
        return " or ".join(dict.fromkeys(map(_describe, members)))
    first = members[0]
    origin, arguments = get_origin(first), get_args(first)
    if first in _NAMES:
        return _NAMES[first]
    if origin is Literal:
        return f"one of {_listed(arguments)}" if len(arguments) > 1 else _listed(arguments)
    if _is_record(first):
        return f"a list [{', '.join(first._fields)}]"
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return f"a list, each item {_describe(arguments[0])}"
    if origin is tuple:
        return f"a list of {len(arguments)}: {', '.join(map(_describe, arguments))}"
    if origin is dict:
        return f"a table, each value {_describe(arguments[1])}"
    return "a table"


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(_inline, values))


def _spelled(raw: Any) -> str:
    if isinstance(raw, (list, dict)):
        return "a list" if isinstance(raw, list) else "a table"
    return _inline(raw) if isinstance(raw, (bool, int, float, str)) else f"the date or time {raw}"


# --- Reading ---


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a value stands, for errors."""

    source: str
    root: Any
    origins: Mapping[str, str]  # dotted path -> the override that set it
    path: str = ""

    def key(self, name: str) -> _Place:
        return dataclasses.replace(self, path=_joined(self.path, name))

    def item(self, index: int) -> _Place:
        return dataclasses.replace(self, path=f"{self.path}[{index}]")

    def fail(self, sentence: str) -> NoReturn:
        mine = [text for path, text in self.origins.items() if _within(self.path, path)]
        raise UserError(f"{mine[-1] if mine else self.source}: {sentence}{'' if sentence.endswith('?') else '.'}")


def _within(path: str, ancestor: str) -> bool:
    return path == ancestor or path.startswith((f"{ancestor}.", f"{ancestor}["))


def _value(hint: Any, raw: Any, default: Any, place: _Place) -> Any:
    members = _members(hint)
    if raw == NONE and NoneType in members:
        return None
    if isinstance(raw, dict) and (classes := _classes(hint)):
        return _table(classes, raw, default, place)
    for member in members:
        value = _plain(member, raw, place)
        if value is not MISSING:
            return value
    return place.fail(f"{place.path} takes {_describe(hint)}, not {_spelled(raw)}")


def _plain(hint: Any, raw: Any, place: _Place) -> Any:
    """The value as one type that is no dataclass, or MISSING where it does not fit."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return next((choice for choice in arguments if type(choice) is type(raw) and choice == raw), MISSING)
    if hint is float and type(raw) in (int, float):
        return float(raw) if abs(raw) <= sys.float_info.max or type(raw) is float else place.fail(f"{place.path} is too large a number")
    if hint is Path and isinstance(raw, str):
        return Path(raw)
    if hint in _NAMES:
        return raw if type(raw) is hint else MISSING
    if origin is dict and isinstance(raw, dict):
        return {key: _value(arguments[1], value, MISSING, place.key(key)) for key, value in raw.items()}
    if isinstance(raw, list) and (origin is tuple or _is_record(hint)):
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_value(arguments[0], value, MISSING, place.item(i)) for i, value in enumerate(raw))
        kinds = arguments if origin is tuple else tuple(_hints(hint).values())
        if len(kinds) != len(raw):
            place.fail(f"{place.path} takes {_describe(hint)}, not a list of {len(raw)}")
        values = [_value(kind, value, MISSING, place.item(i)) for i, (kind, value) in enumerate(zip(kinds, raw, strict=True))]
        return tuple(values) if origin is tuple else hint(*values)
    return MISSING


def _table(classes: tuple[Any, ...], raw: dict[str, Any], default: Any, place: _Place) -> Any:
    cls = _choice(classes, raw, default)
    if cls is None:
        kinds = _kinds(classes)
        given = f", not {_spelled(raw['kind'])}" if "kind" in raw else ": it is missing"
        place.key("kind").fail(f"{_joined(place.path, 'kind')} takes one of {_listed(list(kinds))}{given}")
    hints, defaults = _hints(cls), _defaults(cls, default)
    for key in raw:
        if key not in hints:
            place.key(key).fail(_unknown(place, key, list(hints)))
    values = {}
    for name, hint in hints.items():
        there = place.key(name)
        if name in raw:
            values[name] = _value(hint, raw[name], defaults[name], there)
        elif defaults[name] is not MISSING:
            values[name] = defaults[name]
        elif len(_members(hint)) == 1 and _classes(hint):
            values[name] = _value(hint, {}, MISSING, there)
        else:
            there.fail(f"{there.path} must be set: it takes {_describe(hint)}")
    try:
        return cls(**values)
    except (UserError, ValueError) as error:
        sentence = str(error).rstrip(".")
        return place.fail(f"{place.path}: {sentence}" if place.path else sentence)


def _choice(classes: tuple[Any, ...], raw: Mapping[str, Any], default: Any) -> Any:
    """The class that a table is meant for, or None."""
    if len(classes) == 1:
        return classes[0]
    kind = raw.get("kind", getattr(default, "kind", None))
    return _kinds(classes).get(kind) if isinstance(kind, str) else None


def _unknown(place: _Place, key: str, siblings: list[str]) -> str:
    """The sentence for a key that is no setting, with the nearest one that is."""
    beside = {_joined(place.path, name): name for name in siblings}
    anywhere = {path: path.rpartition(".")[2] for path in _paths(place.root, "", ())}

    def likeness(item: tuple[str, str]) -> float:
        path, name = item
        initials = "".join(word[:1] for word in name.split("_"))
        same = 1.0 if key in (name, initials) else difflib.SequenceMatcher(None, key, name).ratio()
        return same + 0.3 * (path in beside)

    nearest = max({**anywhere, **beside}.items(), key=likeness, default=None)
    what = f"{_joined(place.path, key)} is not a setting"
    if nearest and likeness(nearest) >= 0.8:
        return f"{what}; did you mean {nearest[0]}?"
    return f"{what}; {place.path or 'what is set here'} takes {', '.join(siblings) or 'nothing'}"


def _paths(hint: Any, path: str, above: tuple[Any, ...]) -> Iterator[str]:
    for cls in _classes(hint):
        if cls not in above:
            for name, inner in _hints(cls).items():
                yield _joined(path, name)
                yield from _paths(inner, _joined(path, name), (*above, cls))


# --- Overrides ---


def _changes(overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The overrides as one nested table, and which text set which path."""
    table: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for text in overrides:
        dotted, equals, value = text.partition("=")
        keys = _keys(dotted) if equals else []
        if not keys:
            raise UserError(f"{text!r} changes no setting: write it as a.b=value, such as steps=100.")
        inner = table
        for key in keys[:-1]:
            if not isinstance(inner.get(key), dict):
                inner[key] = {}
            inner = inner[key]
        inner[keys[-1]] = _toml_or_text(value)
        origins[".".join(map(_key, keys))] = text
    return table, origins


def _keys(dotted: str) -> list[str]:
    """'a."b c".d' -> [a, b c, d]; empty where it is no dotted key."""
    try:
        table: Any = tomllib.loads(f"{dotted.strip()} = 0")
    except (ValueError, RecursionError):
        return []
    keys = []
    while isinstance(table, dict) and len(table) == 1:
        key, table = next(iter(table.items()))
        keys.append(key)
    return keys if table == 0 else []


def _toml_or_text(value: str) -> Any:
    try:
        table = tomllib.loads(f"value = {value}")
    except (ValueError, RecursionError):
        return value
    return table["value"] if len(table) == 1 else value


def _merge(hint: Any, raw: Any, change: Any, default: Any) -> Any:
    """A raw value with the overrides on top."""
    if not isinstance(change, dict):
        return change
    if classes := _classes(hint):
        table = raw if isinstance(raw, dict) else {}
        kind = table.get("kind", getattr(default, "kind", None))
        if len(classes) > 1 and change.get("kind", kind) != kind:
            table, default = {}, MISSING
        cls = _choice(classes, {**table, **change}, default)
        hints, defaults = (_hints(cls), _defaults(cls, default)) if cls else ({}, {})
        return table | {k: _merge(hints.get(k), table.get(k, MISSING), v, defaults.get(k, MISSING)) for k, v in change.items()}
    inner = next((get_args(member)[1] for member in _members(hint) if get_origin(member) is dict), None)
    if inner is None:
        return change
    if not isinstance(raw, dict):
        raw = tomllib.loads(f"value = {_inline(default)}")["value"] if isinstance(default, dict) else {}
    return raw | {key: _merge(inner, raw.get(key, MISSING), value, MISSING) for key, value in change.items()}


# --- Writing ---


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _inline(name)


def _joined(path: str, name: str) -> str:
    return f"{path}.{_key(name)}" if path else _key(name)


def _inline(value: Any) -> str:
    """One value on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (str, Path)):  # JSON's escapes are TOML's; only DEL is allowed raw there and not here
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_inline, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {_inline(inner)}" for key, inner in value.items()) + "}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        defaults = _defaults(type(value), MISSING)
        pairs = {name: getattr(value, name) for name in defaults}
        return _inline({name: NONE if v is None else v for name, v in pairs.items() if v is not None or defaults[name] is not None})
    raise TypeError(f"settings cannot hold {value!r}")


def _comment(doc: str, hint: Any) -> list[str]:
    choices = list(_kinds(_classes(hint))) or [choice for m in _members(hint) if get_origin(m) is Literal for choice in get_args(m)]
    if len(choices) > 1:
        what = "Kinds" if _classes(hint) else "One of"
        doc = f"{doc.rstrip('.')}. {what}: {_listed(choices)}.".removeprefix(". ")
    return [f"# {line}" for part in doc.splitlines() for line in textwrap.wrap(part, 110)]


def _table_lines(settings: Any, base: Any, path: str) -> list[str]:
    """The lines of one table: plain values first, since a key after a [table] would belong to that table."""
    cls = type(settings)
    docs = {f.name: f.metadata.get("doc", "") for f in dataclasses.fields(cls)}
    defaults = _defaults(cls, base)
    plain: list[str] = []
    tables: list[str] = []
    for name, hint in sorted(_hints(cls).items(), key=lambda item: item[0] != "kind"):
        value, there, comment = getattr(settings, name), _joined(path, name), _comment(docs[name], hint)
        parts = list(_parts(value, there))
        if parts:
            for number, (header, inner, where) in enumerate(parts):
                inner_base = defaults[name] if inner is value else MISSING
                tables += ["", *(comment if number == 0 else ()), header, *_table_lines(inner, inner_base, where)]
        elif value is None and defaults[name] is None and _classes(hint):
            tables += ["", *comment, f"# [{there}]"]
        elif value is None:
            plain += [*comment, f"# {name} =" if defaults[name] is None else f'{name} = "{NONE}"']
        elif value == NONE and NoneType in _members(hint):
            raise ValueError(f'{there} may be None, so it cannot be the text "{NONE}"')
        else:
            plain += [*comment, f"{_key(name)} = {_inline(value)}"]
    return plain + tables


def _parts(value: Any, path: str) -> Iterator[tuple[str, Any, str]]:
    """(header, settings, path) of each table that a value is written as; none for what fits on a line."""
    if dataclasses.is_dataclass(value):
        yield f"[{path}]", value, path
    elif isinstance(value, tuple) and all(map(dataclasses.is_dataclass, value)):
        yield from ((f"[[{path}]]", item, path) for item in value)
    elif isinstance(value, dict) and all(map(dataclasses.is_dataclass, value.values())):
        for key, item in value.items():
            yield f"[{_joined(path, key)}]", item, _joined(path, key)
