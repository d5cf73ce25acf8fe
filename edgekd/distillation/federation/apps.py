"""A round of a federation as Flower messages, in one process.

Flower gives the round itself (its strategy loop, client app, records and messages). What it lacks is here: a mean of
half-precision logits that neither overflows nor depends on the order of the replies, and a Grid that calls the clients
in this process (Flower's own starts Ray). No socket is opened.

A client receives the consensus of the round before and sends its logits; its images and weights are not sent. Call
flower() before importing this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from edgekd.distillation.federation import Logits
from edgekd.store.artifacts import Json

# From a client's number, from 1, and the consensus of the round before, if any, to its logits and its last loss.
Train = Callable[[int, Logits | None], tuple[Logits, float]]
_RUN_ID = 1


def exchange(train: Train, clients: int, consensus: Logits | None) -> tuple[Logits, Json]:
    """Run one round.

    Args:
        train: what a client does in it.
        clients: how many there are, two or more.
        consensus: of the round before; None in the first.

    Returns:
        The new consensus, and as metrics each client's last loss and the bytes of all arrays sent.
    """
    known = ArrayRecord({} if consensus is None else {"logits": Array(consensus)})
    strategy = MeanLogits()
    result = strategy.start(LocalGrid(client_app(train), clients), known, num_rounds=1)
    sent = {"bytes_up": strategy.bytes_up, "bytes_down": clients * _size(known)}
    return result.arrays["logits"].numpy(), {"losses": strategy.losses, **sent}


def client_app(train: Train) -> ClientApp:
    """A client that trains on request and replies with its logits.

    Args:
        train: what the client with a number does in a round.
    """
    app = ClientApp()

    @app.train()
    def reply(message: Message, context: Context) -> Message:
        known = message.content.array_records["arrays"]
        consensus = known["logits"].numpy() if "logits" in known else None
        logits, loss = train(int(context.node_config["partition-id"]) + 1, consensus)
        arrays, metrics = ArrayRecord({"logits": Array(logits)}), MetricRecord({"loss": loss})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    return app


class MeanLogits(FedAvg):
    """FedAvg's round, in which the arrays are logits instead of weights, and every client takes part."""

    losses: list[float]
    bytes_up: int

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """FedAvg's messages in the clients' order: FedAvg shuffles them, which would make runs differ."""
        messages = super().configure_train(server_round, arrays, config, grid)
        return sorted(messages, key=lambda message: message.metadata.dst_node_id)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord, MetricRecord]:
        """The clients' mean; FedAvg's own is summed in the arrays' half precision."""
        contents = [reply.content for reply in replies]
        arrays = [content.array_records["arrays"] for content in contents]
        self.losses = [float(str(content.metric_records["metrics"]["loss"])) for content in contents]
        self.bytes_up = sum(map(_size, arrays))
        consensus = mean_logits([array["logits"].numpy() for array in arrays])
        return ArrayRecord({"logits": Array(consensus)}), MetricRecord({"loss": float(np.mean(self.losses))})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """None: the clients are evaluated when their training ends."""
        return []


def mean_logits(logits: Sequence[Logits]) -> Logits:
    """The clients' mean (Li and Wang 2019, algorithm 1; Lin et al. 2020, equation 3), summed in double precision.

    Args:
        logits: one array (V, N, C) float16 per client.

    Returns:
        (V, N, C) float16.
    """
    mean: Logits = np.stack(logits).mean(axis=0, dtype=np.float64).astype(np.float16)
    return mean


class LocalGrid(Grid):
    """Delivers each message to a ClientApp in this process, one after another, in the order they were sent."""

    def __init__(self, app: ClientApp, clients: int) -> None:
        self._app = app
        self._contexts = {
            node: Context(
                run_id=_RUN_ID,
                node_id=node,
                node_config={"partition-id": node - 1, "num-partitions": clients},
                state=RecordDict(),
                run_config={},
            )
            for node in range(1, clients + 1)
        }
        _identify()

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return [self._app(message, self._contexts[message.metadata.dst_node_id]) for message in messages]

    # These are abstract in Grid, for runs on a SuperLink. A strategy does not use them.
    def _no_super_link(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError("no SuperLink holds this run")

    set_run = create_message = push_messages = pull_messages = _no_super_link
    run = property(_no_super_link)


def _identify() -> None:
    """From 1.38 on `Message` takes run and sender from a record of the process that Flower's own runner fills."""
    try:
        from flwr.supercore.task_identity import TaskIdentity
    except ImportError:
        return
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = _RUN_ID, 1, 1


def _size(arrays: ArrayRecord) -> int:
    return sum(len(array.data) for array in arrays.values())
