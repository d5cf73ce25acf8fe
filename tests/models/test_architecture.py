from __future__ import annotations

import pytest
from pydantic import ValidationError

from edgekd.models.architecture import Architecture, Code

CODE = Code(file="nets.py", sha256="0123456789abcdef" * 4, function="build")


def test_edits_are_added_in_order_and_the_old_one_is_left_alone():
    plain = Architecture(model="cifar/resnet8", num_classes=3)
    edited = plain.edited({"edit": "prune"}).edited({"edit": "quantize"})
    assert [edit["edit"] for edit in edited.edits] == ["prune", "quantize"] and plain.edits == ()


def test_json_round_trip_and_no_word_about_code_where_there_is_none():
    for each in (
        Architecture(model="cifar/resnet8", num_classes=3, heads={"shape": ("round", "flat")}),
        Architecture(model=str(CODE), num_classes=3, code=CODE),
    ):
        assert Architecture.model_validate_json(each.model_dump_json()) == each
        assert ("code" in each.model_dump()) is (each.code is not None)


def test_a_file_of_code_lies_under_its_own_digest():
    assert (str(CODE), CODE.place) == ("nets.py:build", "code/0123456789abcdef/nets.py")


@pytest.mark.parametrize(
    "change", [{"file": "../nets.py"}, {"file": "nets.txt"}, {"sha256": "0" * 63}, {"function": "a.b"}]
)
def test_code_names_no_other_folder_and_one_function(change):
    with pytest.raises(ValidationError, match=next(iter(change))):
        Code.model_validate({**CODE.model_dump(), **change})
