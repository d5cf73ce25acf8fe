"""YAML that PyYAML answers with other errors than its own, or not at all."""

from __future__ import annotations

import pytest
import yaml

from edgekd import safe_yaml

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)
MERGES = "a: &a {k0: 1}\n" + "\n".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 10)}]}}"
    for before, name in zip("abcdefg", "bcdefgh", strict=True)
)
REFUSED = {
    "a tag on a word": ("a: !!int abc", "does not fit its tag"),
    "a boolean's tag": ("a: !!bool abc", "does not fit its tag"),
    "a float's tag": ("a: !!float abc", "does not fit its tag"),
    "a number beyond all floats": ("b: 1\na: 1e400", "not a finite number: 1e400\n  in .*line 2"),
    "no number": ("a: !!float .nan", "not a finite number: .nan"),
    "5000 digits with a tag": (f"a: !!int {'9' * 5000}", "does not fit its tag"),
    "a date's tag": ("a: !!timestamp soon", "the tag !!timestamp is not supported"),
    "an object": ("a: !!python/object/apply:os.system [ls]", "the tag !!python"),
    "a set": ("a: !!set {b}", "the tag !!set"),
    "a control character": ("a: b\a", "special characters"),
    "a control character that is escaped": (r'a: "b\0"', "U\\+0000"),
    "half of a pair": (r'a: "\ud800"', "U\\+D800"),
    "brackets": (f"a: {'[' * 500}{']' * 500}", "nested"),
    "sections": ("\n".join(f"{' ' * depth}a:" for depth in range(600)), "nested"),
    "itself": ("a: &a [*a]", "contains itself"),
    "itself as a section": ("a: &a {b: *a}", "contains itself"),
    "many laughs": (LAUGHS, "more than 100,000 values"),
    "many merges": (MERGES, "more than 100,000 values"),
    "a key that is a list": ("? [a, b]\n: c", "does not fit|unhashable"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_with_a_yaml_error(text, message):
    with pytest.raises(yaml.YAMLError, match=message):
        safe_yaml.load(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1:30", "1:30"),
        ("010", "010"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("yes", "yes"),
        ("12", 12),
        ("-3", -3),
        ("0", 0),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("true", True),
        ("~", None),
        ("", None),
        ("!!str 5", "5"),
        ("{a: &x [1, 2], b: *x}", {"a": [1, 2], "b": [1, 2]}),
        ("{a: &x {k: 1, m: 2}, b: {<<: *x, m: 3}}", {"a": {"k": 1, "m": 2}, "b": {"k": 1, "m": 3}}),
        ("äöü 🙂", "äöü 🙂"),
    ],
)
def test_plain_values_are_those_of_yaml_1_2(text, value):
    found = safe_yaml.load(text)
    assert found == value and type(found) is type(value)
