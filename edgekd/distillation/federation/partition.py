"""Partitions the training images between clients and a public part, whose labels are not used.

flwr-datasets has a Dirichlet partitioner too. It is another package, works on Hugging Face data sets only, and has no
public part, so that deal() is here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgekd.data.composed import Chosen
from edgekd.data.dataset import Dataset, Split, open_split
from edgekd.data.leaks import contents
from edgekd.data.sources import Labels
from edgekd.data.splits import carve
from edgekd.errors import DataError
from edgekd.store.artifacts import Artifact, Details, Json

VERSION = 1
LEAST = 10  # images per client, as is common in experiments on skewed clients
_TRIES = 100
# Appended to the seed, so that the public part and the clients' parts are drawn independently of each other.
_PUBLIC, _PRIVATE = 11, 12


class PartitionDetails(Details):
    """How many clients there are."""

    clients: int


class Partition(Artifact[PartitionDetails]):
    """`public.npy`, `client1.npy`, …: positions in the training split; no image is in two of them."""

    kind = "partition"

    @property
    def public_rows(self) -> Labels:
        """(N,) int64: the positions of the public images in the training split."""
        rows: Labels = np.load(self.path / "public.npy")
        return rows

    def public(self, data: Dataset) -> Split:
        """The public images, without labels."""
        return Chosen(open_split(data, "train"), self.public_rows, labelled=False)

    def client(self, number: int, data: Dataset) -> Split:
        """The private images of client `number`, from 1, with labels."""
        return Chosen(open_split(data, "train"), np.load(self.path / f"client{number}.npy"))


def partition(
    data: Dataset, out: Path, *, clients: int, public_share: float, alpha: float | None, seed: int
) -> Partition:
    """Partition the training split.

    Args:
        data: whose training split is partitioned.
        out: an empty folder, which becomes the artifact.
        clients: how many.
        public_share: the public part's share of each class, from 0 to 1.
        alpha: of the Dirichlet distribution; None: every client has the same proportions of classes.
        seed: of the draws.

    Raises:
        DataError: too few images.
    """
    train, seed = open_split(data, "train"), seed % 2**64
    public = carve(train.labels, np.array(contents(train)), data.classes, public_share, [seed, _PUBLIC])
    private = np.flatnonzero(~public)
    np.save(out / "public.npy", np.flatnonzero(public))
    counts: Json = {}
    for number, part in enumerate(deal(train.labels[private], clients, alpha, [seed, _PRIVATE]), 1):
        np.save(out / f"client{number}.npy", private[part])
        found = np.bincount(train.labels[private[part]], minlength=len(data.classes))
        counts[f"client{number}"] = dict(zip(data.classes, found.tolist(), strict=True))
    metrics: Json = {"public": int(public.sum()), "images": counts}
    return Partition.seal(out, details=PartitionDetails(clients=clients), metrics=metrics)


def deal(labels: Labels, clients: int, alpha: float | None, seed: Sequence[int]) -> list[Labels]:
    """Positions of each client's images, sorted; each image is one client's.

    With `alpha` each class is divided in proportions drawn from a symmetric Dirichlet distribution (Hsu, Qi and
    Brown 2019, as in FedDF): 100 is close to even, at 0.1 most clients lack most classes. Drawn again until each
    client has LEAST images.

    Args:
        labels: (N,) class indices.
        clients: how many.
        alpha: above 0; None: every client has the same proportions of classes, give or take one image.
        seed: of the draws.

    Returns:
        One array of positions per client.

    Raises:
        DataError: there are too few images, or none of 100 draws gives every client enough.
    """
    generator = np.random.default_rng(seed)
    if len(labels) < clients * LEAST:
        raise DataError(
            f"too few private images for {clients} clients",
            found=len(labels),
            allowed=f"{LEAST} per client",
            hint="name fewer clients, or a smaller public share",
        )
    for _ in range(_TRIES):
        owner = np.empty(len(labels), dtype=np.int64)
        for label in np.unique(labels):
            own = generator.permutation(np.flatnonzero(labels == label))
            if alpha is None:
                owner[own] = (np.arange(len(own)) + generator.integers(clients)) % clients
            else:
                bounds = np.cumsum(generator.dirichlet(np.full(clients, alpha)))[:-1] * len(own)
                owner[own] = np.searchsorted(bounds, np.arange(len(own)), side="right")
        if np.bincount(owner, minlength=clients).min() >= LEAST:
            return [np.flatnonzero(owner == client) for client in range(clients)]
    raise DataError(
        f"{_TRIES} draws gave some of {clients} clients fewer than {LEAST} images",
        found=f"{len(labels)} private images, alpha {alpha}",
        hint="raise alpha, or name fewer clients",
    )
