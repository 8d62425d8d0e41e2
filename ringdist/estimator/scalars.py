"""Conversion of numbers in the user's notation: integers, floats, decimals, dates and durations.

Dates become seconds since 1970 (UTC), and durations become seconds. Decimals keep their number of digits.
"""

from __future__ import annotations

import datetime
import decimal
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from ringdist.estimator.frames import clock_of, only_numbers

Notation = Literal["real", "integer", "boolean", "decimal", "datetime", "date", "timedelta"]
NOTATIONS = "real", "integer", "boolean", "decimal", "datetime", "date", "timedelta"
CLOCKS = "datetime", "date", "timedelta"
DAY = 86_400.0


@dataclass(frozen=True)
class Scalars:
    """The notation of a column of numbers, and the numbers that may occur.

    Args:
        notation: of one value.
        step: values are multiples of it; 0 for any real number.
        low, high: the ends within which values are drawn.
    """

    notation: Notation = "real"
    step: float = 0.0
    low: float = -np.inf
    high: float = np.inf

    def to_float(self, observed: np.ndarray, label: str) -> np.ndarray:
        """(n,) values in the user's notation as float64.

        Raises:
            ValueError: if a value is not a number of this kind, or infinite.
        """
        if not observed.size:  # of any dtype, such as the NaN of pandas in an absent column
            return np.zeros(0)
        if self.notation in CLOCKS:
            return _seconds(observed, self.notation, label)
        if observed.dtype.kind in "Mm":
            raise ValueError(f"{label}: entries must be numbers, as in fit, found the dtype {observed.dtype}")
        return real(observed, label)

    def rounded(self, values: np.ndarray) -> np.ndarray:
        """The nearest values that may occur."""
        if self.step:
            values = np.round(values / self.step) * self.step
        largest = float(np.finfo(np.float64).max)  # heavy tails may reach beyond
        return np.clip(values, max(self.low, -largest), min(self.high, largest))

    def from_float(self, values: np.ndarray, dtype: str) -> np.ndarray:
        """(n,) numbers, none of them missing, in the user's notation and dtype, as far as NumPy has it."""
        values = self.rounded(np.asarray(values, dtype=np.float64))
        match self.notation:
            case "decimal":
                digits = decimal.Decimal(1).scaleb(round(np.log10(self.step))) if self.step else None
                return _objects([_decimal(value, digits) for value in values.tolist()])
            case "datetime" | "date" | "timedelta":
                kind = "m" if self.notation == "timedelta" else "M"
                clock = np.round(values * 1e6).astype(np.int64).astype(f"{kind}8[us]")
                if dtype == "object":
                    found = clock.astype(object)
                    return _objects([v.date() for v in found] if self.notation == "date" else list(found))
                return clock.astype(dtype) if dtype[:5] in ("datet", "timed") and "," not in dtype else clock
            case "integer" | "boolean":
                return _integers(values, dtype, boolean=self.notation == "boolean")
        return values.astype(dtype) if dtype in ("float16", "float32") else values


def described(observed: np.ndarray, label: str) -> Scalars:
    """The notation of observed values, and the step of those that are written with one.

    Raises:
        ValueError: if they are not numbers.
    """
    kind = observed.dtype.kind
    if kind in "Mm":
        notation: Notation = "datetime" if kind == "M" else "timedelta"
        return _clock(observed, notation, label)
    if kind in "iub":
        return Scalars("boolean", 1.0, 0.0, 1.0) if kind == "b" else Scalars("integer", 1.0, *_ends(observed))
    if kind == "f":
        return Scalars(low=0.0) if observed.size and observed.min() >= 0 else Scalars()
    found = clock_of(observed)
    if found is not None:
        return _clock(observed, cast(Notation, found), label)
    if any(isinstance(value, decimal.Decimal) for value in observed) and only_numbers(observed):
        digits = [_exponent(value) for value in observed if isinstance(value, decimal.Decimal)]
        values = real(observed, label)
        return Scalars("decimal", 10.0 ** max(-12, min(digits)), *_ends(values))
    values = real(observed, label)
    integers = all(isinstance(value, int | np.integer) for value in observed)
    return Scalars("integer", 1.0, *_ends(values)) if integers else Scalars(low=_ends(values)[0])


def real(observed: np.ndarray, label: str) -> np.ndarray:
    """Finite numbers as float64; `ValueError` for anything else."""
    if observed.dtype.kind == "O" and not only_numbers(observed):
        wrong = next(value for value in observed if not only_numbers(np.array([value], dtype=object)))
        raise ValueError(
            f"{label}: a numeric column must contain only numbers, found {wrong!r}; convert it by "
            "pandas.to_numeric(frame[name], errors='coerce'), which replaces other entries by NaN, or fit the column "
            "as 'categorical'"
        )
    with np.errstate(over="ignore"):
        result = np.asarray(observed, dtype=np.float64)
    if np.isinf(result).any():
        raise ValueError(
            f"{label}: numbers must be finite, found infinity; replace it by NaN if it stands for a missing entry"
        )
    return result


def _exponent(value: decimal.Decimal) -> int:
    exponent = value.as_tuple().exponent
    return exponent if isinstance(exponent, int) else 0


def _ends(values: np.ndarray) -> tuple[float, float]:
    """The ends of the support: 0 and inf for non-negative numbers, otherwise −inf and inf."""
    return (0.0, np.inf) if values.size and values.min() >= 0 else (-np.inf, np.inf)


def _clock(observed: np.ndarray, notation: Notation, label: str) -> Scalars:
    seconds = _seconds(observed, notation, label)
    step = next((s for s in (DAY, 3600.0, 60.0, 1.0) if (seconds % s == 0).all()), 1e-6)
    return Scalars(notation, step, 0.0 if notation == "timedelta" and (seconds >= 0).all() else -np.inf)


def _seconds(observed: np.ndarray, notation: str, label: str) -> np.ndarray:
    kind = "m" if notation == "timedelta" else "M"
    if observed.dtype.kind == "O":
        allowed = datetime.timedelta if kind == "m" else datetime.date
        wrong = [value for value in observed if not isinstance(value, allowed | np.datetime64 | np.timedelta64 | str)]
        if wrong:
            raise ValueError(f"{label}: entries must be of the type {notation}, found {wrong[0]!r}")
        try:
            naive = [_in_utc(value) for value in observed]
            observed = np.array(naive, dtype=f"{kind}8[us]") if naive else np.zeros(0, dtype=f"{kind}8[us]")
        except (TypeError, ValueError) as error:
            raise ValueError(f"{label}: entries must be of the type {notation}: {error}") from None
    if observed.dtype.kind != kind:
        raise ValueError(f"{label}: entries must be of the type {notation}, found the dtype {observed.dtype}")
    return np.asarray(observed.astype(f"{kind}8[us]").astype(np.int64) / 1e6)


def _in_utc(value: Any) -> Any:
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return value.astimezone(datetime.UTC).replace(tzinfo=None)
    return value


def _decimal(value: float, digits: decimal.Decimal | None) -> decimal.Decimal:
    exact = decimal.Decimal(repr(value))
    return exact if digits is None else exact.quantize(digits, context=decimal.Context(prec=60))


def _integers(values: np.ndarray, dtype: str, *, boolean: bool) -> np.ndarray:
    if boolean:
        return values > 0.5
    kind = np.dtype(dtype.lower()) if dtype.lower() in np.sctypeDict else np.dtype(np.int64)
    if kind.kind not in "iu":
        kind = np.dtype(np.int64)
    limits = np.iinfo(kind)
    inside = np.clip(values, np.nextafter(float(limits.min), 0), np.nextafter(float(limits.max), 0))
    return inside.astype(kind)


def _objects(values: list[Any]) -> np.ndarray:
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found
