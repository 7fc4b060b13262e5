"""Plain data that is kept and told apart: its JSON texts, and the digest of one."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Any

_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


class Settled(dict[str, Any]):
    """Plain data that nobody changes any more: each of its texts is made once."""

    @cached_property
    def text(self) -> str:
        """As a database keeps it."""
        return json.dumps(self)

    @cached_property
    def canonical(self) -> str:
        """The one text of all equal data."""
        return canonical_text(self)


def canonical_text(content: object) -> str:
    """The one JSON text of all equal data."""
    return _canonical(content)


def text_digest(prefix: str, text: str) -> str:
    """The identity of a text: a prefix with a version, and 128 bits of its SHA-256."""
    return f"{prefix}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def content_digest(prefix: str, content: object) -> str:
    """The identity of plain data: that of its one text."""
    return text_digest(prefix, canonical_text(content))
