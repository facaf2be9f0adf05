"""Values as scripts that put them under `symskew.data`: a page on disk may run a file beside it, but not read one."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np

# JSON is JavaScript but for what would end the script where it stands in a page.
_APART = str.maketrans({letter: f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"})


def script(name: str, value: Any) -> str:
    """A script that sets `symskew.data.name`; numbers that are not finite become null.

    >>> script("study", {"title": "</script>", "mean": float("nan")})
    'symskew.data.study = {"title":"\\\\u003c/script\\\\u003e","mean":null};\\n'
    """
    return f"symskew.data.{name} = {_json(value)};\n"


def entry(name: str, key: int, value: Any) -> str:
    """A script that sets `symskew.data.name[key]`."""
    return f"symskew.data.{name}[{key}] = {_json(value)};\n"


def packed(values: Any, kind: str) -> str:
    """Numbers as the text that the page unpacks into a typed array: "i4", "f4" or "u1", little-endian, base64."""
    return base64.b64encode(np.ascontiguousarray(values, dtype=f"<{kind}").tobytes()).decode("ascii")


def _json(value: Any) -> str:
    text = json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate(_APART)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
