"""What CIFAR-10 and CIFAR-100 have in common."""

from __future__ import annotations

import pytest
from torchvision import datasets

from edgekd.data.sources import source_named
from edgekd.errors import DataError
from edgekd.recipe.settings import DataSettings

DATASETS = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}


@pytest.fixture(params=DATASETS)
def name(request):
    return request.param


@pytest.fixture
def root(name, small_cifar, images):
    count = 10 if name == "cifar10" else 100
    return small_cifar(name.upper(), images, [0] * len(images), [f"class {number}" for number in range(count)])


def test_a_changed_file_is_not_unpickled(name, root):
    source, dataset = source_named(name), DATASETS[name]
    file = root / dataset.base_folder / dataset.train_list[0][0]
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(DataError, match="corrupted"):
        source.read(DataSettings(source=name, root=root))


def test_the_checksum_is_the_fingerprint_wherever_the_files_lie(name, root, tmp_path):
    source, dataset = source_named(name), DATASETS[name]
    there = source.fingerprint(DataSettings(source=name, root=root))
    wanted = source.fingerprint(DataSettings(source=name, root=tmp_path / "new", download=True))
    assert there == wanted == {"archive_md5": dataset.tgz_md5}


def test_missing_files_state_how_to_get_them(name, tmp_path):
    source = source_named(name)
    with pytest.raises(DataError, match="data.download: true"):
        source.read(DataSettings(source=name, root=tmp_path))
    with pytest.raises(DataError, match="needs a root"):
        source.fingerprint(DataSettings(source=name, download=True))
