"""Values in configs: what fits a parameter's type, and that misfits are told in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gin
import pytest

from utils.config import fits, parse, resolved_parameters
from utils.errors import UserError


@gin.configurable
@dataclass(frozen=True)
class LengthOptions:
    """For tests.

    Attributes:
        length: metres.
        size: (height, width).
        names: of scenes.
    """

    length: float = 1.0
    size: tuple[int, int] = (2, 3)
    names: str | Sequence[str] = None  # a default that is not of the type is left alone

    def __post_init__(self) -> None:
        if self.length <= 0:
            raise ValueError(f"LengthOptions.length must be positive, found {self.length}")


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, float, True), (1.5, int, False), (True, int, False), ("1", float, False), (1, bool, False),
        ([124, 124], tuple[int, int], True), (124, tuple[int, int], False), ((1, 2, 3), tuple[int, int], False),
        ((), tuple[int, ...], True), ((1, 2.5), tuple[int, ...], False), ((1, 2.5), Sequence[float], True),
        ("all", str | list[str], True), (["a"], str | Sequence[str], True), (3, str | Sequence[str], False),
        ("ab", list[str], False), (None, int | None, True), (None, str, False), ({"a": 1}, dict[str, int], True),
        ([1], dict[str, int], False), (object(), Any, True),
    ],
)  # fmt: skip
def test_values_fit_types(value, hint, expected):
    assert fits(value, hint) is expected


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("LengthOptions.length = 'a'", "LengthOptions.length = 'a' is not of type float (metres.)"),
        ("LengthOptions.size = 124", "LengthOptions.size = 124 is not of type tuple[int, int]"),
        ("LengthOptions.names = 3", "not of type str | Sequence[str]"),
        ("LengthOptions.length = 0", "LengthOptions.length must be positive, found 0"),
    ],
)
def test_a_bad_value_is_one_sentence(binding, message):
    parse([], [binding])
    with pytest.raises(UserError) as raised:
        resolved_parameters(LengthOptions)
    assert message in str(raised.value) and len(str(raised.value).splitlines()) == 1


def test_good_values_come_back():
    parse([], ["LengthOptions.size = [4, 5]"])
    assert resolved_parameters(LengthOptions) == {"length": 1.0, "size": [4, 5], "names": None}
