from __future__ import annotations

from typing import Any

import pytest
from records import crowded_record, minimal_record, sample_record, sets_record, whole_record

Json = dict[str, Any]


@pytest.fixture
def record() -> Json:
    return sample_record()


@pytest.fixture
def whole() -> Json:
    return whole_record()


@pytest.fixture
def sets() -> Json:
    return sets_record()


@pytest.fixture
def minimal() -> Json:
    return minimal_record()


@pytest.fixture
def crowded() -> Json:
    return crowded_record()
