"""Score files read, and two of them side by side: they can be compared when their cards are equal, field by field.

A difference is refused by its dotted name. Files come from anywhere, so what they hold is checked first.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from videodit.shapes import UserError

WROTE = "name one that `videodit evaluate ... --out FILE` wrote"


def compared(one: Mapping[str, Any], other: Mapping[str, Any], despite: Sequence[str] = ()) -> dict[str, Any]:
    """Two scores side by side, if all their cards say is the same; `despite`: names of fields that may differ."""
    cards = [dict(_fields(score["card"])) for score in (one, other)]
    every = list({**cards[0], **cards[1]})
    for field in despite:
        if not any(_within(name, field) for name in every):
            near = difflib.get_close_matches(field, [*every, *{name.partition(".")[0] for name in every}], 1)
            raise UserError(
                f"--despite {field}: no card has that field; {f'did you mean {near[0]}?' if near else 'a refusal names fields.'}"
            )
    names = [name for name in every if not any(_within(name, field) for field in despite)]
    apart = [name for name in names if cards[0].get(name) != cards[1].get(name)]
    if apart:
        said = [json.dumps(card.get(apart[0])) for card in cards]
        more = f" ({len(apart) - 1} more: {', '.join(apart[1:])})" if apart[1:] else ""
        raise UserError(
            f"These scores cannot be compared: {apart[0]} is {said[0]} in one and {said[1]} in the other{more}; "
            f"measure both alike, or say --despite {apart[0]}."
        )
    held = [score.get("figures", {}) for score in (one, other)]
    figures = {name: _beside(figure, held[1][name]) for name, figure in held[0].items() if name in held[1]}
    first = next(iter(figures.values())) if figures else _beside(one, other)
    return {"measure": one["measure"], **first, "figures": figures, "despite": list(despite)}


def _beside(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Two figures, and whether their intervals overlap, if both have one."""
    values = [float(figure["value"]) for figure in (one, other)]
    spans = [figure["interval"] for figure in (one, other)]
    overlap = None if None in spans else spans[0][0] <= spans[1][1] and spans[1][0] <= spans[0][1]
    return {"values": values, "intervals": spans, "difference": values[1] - values[0], "overlap": overlap, "floor": one["floor"]}


def read(path: Path) -> dict[str, Any]:
    """A score file, whose figures are numbers."""
    try:
        found = loaded(path)
        _whole(found)
    except FileNotFoundError:
        raise UserError(f"There is no file {path}: name scores that `videodit evaluate ... --out FILE` wrote.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {WROTE}.") from None
    except ValueError as error:
        raise UserError(f"{path} is no score ({error}): {WROTE}.") from None
    return found


def loaded(path: Path) -> Any:
    """What a JSON file holds, where all numbers are finite; else a ValueError in words of ours."""
    text = path.read_bytes()
    try:
        found = json.loads(text.decode())
        wrong = next(_endless(found), None)
    except (ValueError, RecursionError):
        raise ValueError("it is empty" if not text.strip() else "it is not JSON") from None
    if wrong is not None:
        raise ValueError(f"{wrong or 'it'} is no finite number")
    return found


def _whole(found: Any) -> None:
    """Refuse what is no score."""
    if not isinstance(found, dict) or not {"card", "value", "interval", "floor", "measure"} <= found.keys():
        raise ValueError("it has no card, value, interval, floor or measure")
    if not isinstance(found["card"], dict) or not isinstance(found["measure"], str):
        raise ValueError("its card is no table, or its measure no text")
    _figure(found, "its")
    figures = found.get("figures", {})  # scores of one number may have none
    if not isinstance(figures, dict):
        raise ValueError("its figures are no table")
    for name, figure in figures.items():
        if not isinstance(figure, dict) or not {"value", "interval", "floor"} <= figure.keys():
            raise ValueError(f"{name[:40]} has no value, interval or floor")
        _figure(figure, f"{name[:40]}: its")


def _figure(found: Mapping[str, Any], its: str) -> None:
    interval = found["interval"]
    if not _is_number(found["value"]) or not (found["floor"] is None or _is_number(found["floor"])):
        raise ValueError(f"{its} value or its floor is no number")
    if interval is not None and not (isinstance(interval, list) and len(interval) == 2 and all(map(_is_number, interval))):
        raise ValueError(f"{its} interval is not two numbers")
    if interval is not None and not interval[0] <= found["value"] <= interval[1]:
        raise ValueError(f"{its} value is not in its interval")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _endless(value: Any, name: str = "") -> Iterator[str]:
    """The dotted names of numbers that are not finite, or that no float holds."""
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _endless(part, f"{name}.{key}" if name else str(key))
    elif _is_number(value) and (not math.isfinite(value) if isinstance(value, float) else abs(value) > 1e300):
        yield name


def _within(name: str, field: str) -> bool:
    return name == field or name.startswith(f"{field}.")


def _fields(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in a table by its dotted name; as JSON has it, so that what is read back is equal."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _fields(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", json.loads(json.dumps(value))
