from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.errors import BackendError
from edgekd.models.session import TorchSession


def test_a_network_answers_in_eval_mode_and_other_shapes_are_refused():
    network = nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.Linear(12, 5)).train()
    images = np.random.default_rng(0).random((3, 3, 2, 2)).astype(np.float32)
    with TorchSession(network) as session:
        found = session.bind(images)()
        with torch.no_grad():
            expected = network[2].cpu()(torch.from_numpy(images).flatten(1)).numpy()
        network.to(session.device)
        assert found.shape == (3, 5) and found.dtype == np.float32 and np.allclose(found, expected, atol=1e-6)
        assert session.engine.startswith("PyTorch ")
        with pytest.raises(BackendError, match="does not take these images"):
            session.bind(images[:, :, :1])()
        with pytest.raises(BackendError, match="without a name\n  found: images"):
            session.bind({"images": images})
    with pytest.raises(BackendError, match="was closed"):
        session.bind(images)
