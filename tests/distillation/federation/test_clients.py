"""The clients of a federation."""

from __future__ import annotations

import numpy as np
import torch

from edgekd.data.loader import Batch
from edgekd.distillation.federation.clients import Clients, ClientTraining, Consensus
from edgekd.distillation.federation.partition import partition
from edgekd.recipe.settings import AugmentSettings, ModelSettings, StepSettings
from edgekd.training.train import training_loader

AUGMENT = AugmentSettings(flip=False)


def test_a_consensus_is_read_by_view_and_image():
    source = Consensus(np.arange(12, dtype="f2").reshape(2, 3, 2), torch.device("cpu"))
    batch = Batch(torch.zeros(2, 3, 8, 8), torch.tensor([-1, -1]), torch.tensor([2, 0]), view=1)
    assert source(batch).logits.tolist() == [[10.0, 11.0], [6.0, 7.0]]


def test_other_epochs_keep_the_share_of_warm_up():
    training = ClientTraining((), StepSettings(epochs=20, warmup_epochs=5.0), (), AUGMENT, 1, 1, 1, 1)
    short = training.settings(4, seed=7)
    assert (short.epochs, short.seed, short.warmup_epochs) == (4, 7, 1.0)


def test_clients_compute_logits_in_single_precision_in_the_order_of_the_images(small_digits, tmp_path):
    (tmp_path / "partitioned").mkdir()
    partitioned = partition(small_digits, tmp_path / "partitioned", clients=2, public_share=0.1, alpha=None, seed=0)
    steps = StepSettings(batch_size=8, precision="bf16")
    training = ClientTraining([ModelSettings(model="cifar/resnet8")] * 2, steps, (), AUGMENT, 1, 1, 1, views=2)
    clients = Clients(small_digits, partitioned, training, tmp_path)
    network, _ = clients.begin(1)
    logits = clients.public_logits(1, network, 5)
    public = partitioned.public(small_digits)
    loader = training_loader(small_digits, training.settings(1, 5), AUGMENT, split=public, views=2)
    assert logits.shape == (2, len(public), 10) and not np.array_equal(*logits)
    with torch.no_grad():
        for view in range(2):
            images = torch.cat([batch.images for batch in loader.view(view)])
            assert np.array_equal(logits[view], network(images).half().numpy())


def test_clients_of_one_model_begin_with_other_weights(small_digits, tmp_path):
    training = ClientTraining([ModelSettings(model="cifar/resnet8")] * 2, StepSettings(), (), AUGMENT, 1, 1, 1, 1)
    (tmp_path / "partitioned").mkdir()
    partitioned = partition(small_digits, tmp_path / "partitioned", clients=2, public_share=0.1, alpha=None, seed=0)
    clients = Clients(small_digits, partitioned, training, tmp_path)
    first, again, second = (next(clients.begin(number)[0].parameters()) for number in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, second)
