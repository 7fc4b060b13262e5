"""Numbers for people: shares in percent, costs with a unit, differences with a sign."""

from __future__ import annotations

import math
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal

from spaces.metrics import METRICS

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"
THIN = "\N{NARROW NO-BREAK SPACE}"
TITLES = {
    "accuracy": "accuracy",
    "flops": "FLOPs",
    "macs": "MACs",
    "params": "parameters",
    "latency_ratio": "latency",
    "latency_ms": "latency in ms",
    "memory": "memory in bytes",
}
UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def fixed(value: float, decimals: int) -> str:
    """A number with so many decimals; halves go up, as in the page's script."""
    exact = Decimal(value).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)
    return f"{exact:f}"


def title(metric: str) -> str:
    """How a metric is written in sentences and headings."""
    return TITLES.get(metric, metric.replace("_", " ")) if metric in METRICS else metric


def percent(share: float | None, decimals: int = 1) -> str:
    """A share of 0..1 in percent: ``98.9 %``; a dash where there is none."""
    if share is None or not math.isfinite(share):
        return DASH
    return f"{fixed(100 * share, decimals)}{THIN}%"


def points(difference: float, decimals: int = 1) -> str:
    """A difference of two shares in percentage points, signed: ``+0.8``."""
    return signed(100 * difference, decimals)


def signed(value: float, decimals: int) -> str:
    """A number with its sign; one that rounds to zero has ±."""
    text = fixed(abs(value), decimals)
    if float(text) == 0:
        return f"±{text}"
    return f"{MINUS if value < 0 else '+'}{text}"


def heading(metric: str) -> str:
    """How a metric is written at the head of a column."""
    text = title(metric)
    return text[:1].upper() + text[1:]


def change(value: float, reference: float) -> str:
    """A cost against a reference in percent, signed: ``+0.26 %``."""
    return f"{change_number(value, reference)}{THIN}%" if reference else DASH


def change_number(value: float, reference: float) -> str:
    """The same without its unit: small changes keep more decimals, none is ``±0``."""
    if value == reference:
        return "±0"
    text = signed(100 * (value / reference - 1), change_decimals(value, reference))
    return "≈0" if text.startswith("±") else text


def change_decimals(value: float, reference: float) -> int:
    """Decimals of a change in percent: 3 below 0.01, 2 below 1, 1 below 100, none above."""
    size = abs(100 * (value / reference - 1))
    return next((d for limit, d in ((0.01, 3), (1, 2), (100, 1)) if size < limit), 0)


def quantity(value: float, digits: int = 4) -> str:
    """A count with a unit, to so many significant digits: ``17.06 M``, ``269.4 k``."""
    factor, unit = next((f, u) for f, u in UNITS if abs(value) >= f or f == 1)
    scaled = value / factor
    whole = len(str(int(abs(scaled))))
    text = fixed(scaled, max(digits - whole, 0) if unit else 0)
    return f"{text}{THIN}{unit}" if unit else text


def ratio(value: float) -> str:
    """A multiple of the baseline's time: ``1.043×``."""
    return f"{fixed(value, 3)}×"


def duration(seconds: float) -> str:
    """Wall time: ``41 s``, ``3 min 05 s``, ``2 h 10 min``."""
    whole = math.floor(seconds + 0.5)
    if whole < 60:
        return f"{fixed(seconds, 1)} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def moment(text: str | None) -> str:
    """A stored time to the minute: ``2026-10-02 14:03 UTC``."""
    if not text:
        return DASH
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return text


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: ``1 trial``, ``24 trials``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def enumerated(words: list[str]) -> str:
    """Words as a sentence has them: ``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def short_digest(digest: str) -> str:
    """Enough of a digest to tell candidates apart: its prefix and eight digits."""
    prefix, dash, rest = digest.partition("-")
    return f"{prefix}{dash}{rest[:8]}"
