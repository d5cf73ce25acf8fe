from __future__ import annotations

import json

import pytest

from edgekd import safe_json


def test_what_json_dumps_writes_comes_back() -> None:
    value = {"a": [1, 2.5, -(2**63), None, True, "é\u2028\0"], "b": {"c": []}, "d": 1e308}
    assert safe_json.loads(json.dumps(value).encode()) == value
    assert safe_json.loads(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (bytes(8), "Expecting value"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"a": {"b": [0, 1e999]}}', r"a\.b\[1\] is too large a number"),
        (b'{"a": 9223372036854775808}', "a is too large a number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "4300 digits"),
        (b"[" * 100_000, "nested more than 50 deep"),
        (b"[" * 60 + b"]" * 60, "nested more than 50 deep"),
        (b'{"a": "\\ud800"}', r"a is not text: '\\ud800'"),
        (b'{"\\udfff": 1}', "is not text"),
        (b'{"a": "\xe9"}', "utf-8"),
        ('{"a": 1}'.encode("utf-16"), "utf-8"),
    ],
)
def test_what_python_reads_and_json_is_not_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        safe_json.loads(content)
