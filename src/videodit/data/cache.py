"""Latents and features computed once and kept by content: the key is all that decides them, so a stale entry is never used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor


def remembered(folder: Path, key: dict[str, Any], make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors that `key` decides: from `folder`, or made now and kept there."""
    words = json.dumps(key, sort_keys=True, default=str)
    path = folder / f"{hashlib.sha256(words.encode()).hexdigest()[:16]}.safetensors"
    try:
        with safe_open(path, "pt") as file:
            if file.metadata().get("key") == words:
                return load_file(path)
    except (OSError, SafetensorError, AttributeError):
        path.unlink(missing_ok=True)
    tensors = {name: value.contiguous() for name, value in make().items()}  # laid out as they come back, to the last bit of a sum
    folder.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".writing")
    save_file(tensors, aside, metadata={"key": words})
    aside.rename(path)
    return tensors
