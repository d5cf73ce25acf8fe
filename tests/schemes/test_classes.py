"""Groups of classes, and data under coarser labels."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.data.dataset import open_split
from edgekd.errors import UsageError
from edgekd.recipe.settings import ModelSettings
from edgekd.schemes._classes import check_disjoint, check_partition, relabel, unpublished


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ((("a", "b"),), "two or more"),
        ((("a",), ()), "none empty"),
        ((("a", "b"), ("b",)), "more than once: b"),
        ((("a",), ("b",)), "in no group: c"),
        ((("a", "b"), ("c", "d")), "not a class of the data: d"),
    ],
)
def test_groups_that_do_not_hold_each_class_once_are_refused(groups, message):
    with pytest.raises(UsageError, match=message):
        check_partition(groups, ("a", "b", "c"), "groups")


def test_groups_are_checked_before_the_classes_are_known():
    check_disjoint((("a",), ("b", "c")), "groups")
    with pytest.raises(UsageError, match="tasks.a.classes: every class is in one group"):
        check_disjoint((("a",), ("a",)), "tasks.a.classes")


def test_coarser_labels_follow_the_order_of_the_groups(small_digits, tmp_path):
    groups = {"odd": list("13579"), "even": list("02468")}
    coarse = relabel(small_digits, groups, tmp_path, where="groups")
    fine = open_split(small_digits, "train").labels
    assert coarse.classes == ("odd", "even")
    assert np.array_equal(open_split(coarse, "train").labels, 1 - fine % 2)
    assert coarse.metrics["classes"]["train"] == {"odd": int((fine % 2).sum()), "even": int((1 - fine % 2).sum())}


def test_a_model_that_is_only_checked_is_not_downloaded():
    assert not unpublished(ModelSettings(model="timm/resnet18", pretrained=True)).pretrained
