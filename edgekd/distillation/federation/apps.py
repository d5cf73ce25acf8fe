"""The rounds as Flower's ServerApp and ClientApp, and a Grid that carries their messages inside one process.

Strategy and apps use Flower's public names only, so that they can be served by its SuperLink and SuperNodes as well;
edgekd itself never opens a socket: LocalGrid calls one client after the other.

What goes up is a client's (V, N, C) float16 logits for V views of the N public images; what comes down is their mean.
A client's weights and images stay in its own context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from edgekd.distillation.federation import Logits
from edgekd.errors import TrainingError

State = Mapping[str, Tensor]
_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class Request:
    """What a client is asked: its number and the round's, from 1; what it and everybody knew before, if anything."""

    client: int
    round: int
    state: State | None
    consensus: Logits | None


@dataclass(frozen=True)
class Reply:
    """A client's weights, which it keeps; its logits, which it sends; and the last loss on its own images."""

    state: State
    logits: Logits
    loss: float


@dataclass(frozen=True)
class Exchange:
    """What rounds leave: the consensus, each client's weights, its last loss, and the bytes of all logits sent."""

    consensus: Logits
    states: Sequence[State]
    losses: Sequence[float]
    bytes_up: int
    bytes_down: int


def exchange(
    train: Callable[[Request], Reply],
    states: Sequence[State | None],
    consensus: Logits | None,
    *,
    first: int,
    rounds: int = 1,
) -> Exchange:
    """Run rounds in this process.

    Args:
        train: what a client does in a round.
        states: one a client: its weights after the round before; None: it has none yet.
        first: the number of the first round.
    """
    grid = LocalGrid(client_app(train), states)
    strategy = MeanLogits(len(states), first=first)
    context = Context(run_id=grid.run_id, node_id=0, node_config={}, state=RecordDict(), run_config={})
    begun = ArrayRecord() if consensus is None else ArrayRecord({"logits": Array(consensus)})
    server_app(strategy, begun, rounds)(grid, context)
    kept = [_arrays(context.state, "network").to_torch_state_dict() for context in grid.contexts.values()]
    return Exchange(strategy.consensus, kept, strategy.losses, strategy.bytes_up, strategy.bytes_down)


def client_app(train: Callable[[Request], Reply]) -> ClientApp:
    app = ClientApp()

    @app.train()
    def answer(message: Message, context: Context) -> Message:
        client = int(context.node_config["partition-id"])
        config, known = message.content["config"], _arrays(message.content, "arrays")
        assert isinstance(config, ConfigRecord)
        kept = _arrays(context.state, "network").to_torch_state_dict() if "network" in context.state else None
        reply = train(
            Request(
                client=client + 1,
                round=int(str(config["round"])),
                state=kept,
                consensus=known["logits"].numpy() if "logits" in known else None,
            )
        )
        context.state["network"] = ArrayRecord(dict(reply.state))
        content = RecordDict(
            {
                "arrays": ArrayRecord({"logits": Array(reply.logits)}),
                "metrics": MetricRecord({"partition-id": client, "loss": reply.loss}),
            }
        )
        return Message(content, reply_to=message)

    return app


def server_app(strategy: Strategy, begun: ArrayRecord, rounds: int) -> ServerApp:
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        strategy.start(grid, initial_arrays=begun, num_rounds=rounds, timeout=_TIMEOUT_S)

    return app


class MeanLogits(Strategy):
    """The arrays that go round are the mean of all clients' logits, never weights.

    Args:
        clients: all of them answer in each round.
        first: the number of the first round.
    """

    consensus: Logits

    def __init__(self, clients: int, *, first: int = 1) -> None:
        self.losses: list[float] = []
        self.bytes_up = self.bytes_down = 0
        self._clients, self._first = clients, first

    def summary(self) -> None:
        pass

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        messages = []
        for node in sorted(grid.get_node_ids()):
            said = ConfigRecord({**config, "round": self._first + server_round - 1})
            content = RecordDict({"arrays": arrays, "config": said})
            self.bytes_down += _size(arrays)
            messages.append(Message(content, node, MessageType.TRAIN, group_id=str(server_round)))
        return messages

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord, MetricRecord]:
        """Raises TrainingError where a client failed or did not answer."""
        replies = list(replies)
        failed = [reply.error.reason for reply in replies if reply.has_error()]
        if failed or len(replies) != self._clients:
            raise TrainingError(
                f"{len(replies) - len(failed)} of {self._clients} clients answered", found="; ".join(map(str, failed))
            )
        # Replies come in any order over a network; sums of floats keep the order of the partitions.
        found = sorted(((_metrics(r.content), _arrays(r.content, "arrays")) for r in replies), key=lambda pair: pair[0])
        self.bytes_up += sum(_size(arrays) for _, arrays in found)
        self.losses = [loss for (_, loss), _ in found]
        self.consensus = mean_logits([arrays["logits"].numpy() for _, arrays in found])
        return ArrayRecord({"logits": Array(self.consensus)}), MetricRecord({"loss": float(np.mean(self.losses))})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        return None


def mean_logits(votes: Sequence[Logits]) -> Logits:
    """The clients' mean (Li and Wang 2019, algorithm 1; Lin et al. 2020, equation 3), summed in double precision."""
    summed = np.zeros(votes[0].shape, dtype=np.float64)
    for vote in votes:
        summed += vote
    summed /= len(votes)
    return summed.astype(np.float16)


class LocalGrid(Grid):
    """Delivers each message to a ClientApp in this process, one after another, in the order they were sent."""

    def __init__(self, app: ClientApp, states: Sequence[State | None], run_id: int = 1) -> None:
        self.run_id = run_id
        self.contexts = {
            node: Context(
                run_id=run_id,
                node_id=node,
                node_config={"partition-id": node - 1, "num-partitions": len(states)},
                state=RecordDict({} if state is None else {"network": ArrayRecord(dict(state))}),
                run_config={},
            )
            for node, state in enumerate(states, 1)
        }
        self._app = app
        self._replies: dict[str, Message] = {}
        self._sent = 0
        _identify(run_id)

    # Grid makes these two abstract for runs that a SuperLink holds. No app here asks for one, and an answer would be
    # made up: whoever does is to hear of it.
    def set_run(self, run: Any) -> None:
        raise NotImplementedError("the run is given to LocalGrid's constructor")

    @property
    def run(self) -> Any:
        raise NotImplementedError("no SuperLink holds this run")

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return [self._deliver(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._replies.pop(name) for name in message_ids if name in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self.pull_messages(self.push_messages(messages))

    def _deliver(self, message: Message) -> str:
        self._sent += 1
        name = f"{self.run_id}-{self._sent}"
        # As over a wire, neither side keeps a reference into the other's records.
        request = deepcopy(message)
        # Flower's own grids write it the same way: there is no setter.
        request.metadata.__dict__["_message_id"] = name
        self._replies[name] = deepcopy(self._app(request, self.contexts[message.metadata.dst_node_id]))
        return name


def _identify(run_id: int) -> None:
    """From 1.38 on `Message` takes run and sender from a record of the process that Flower's own runner fills."""
    try:
        from flwr.supercore.task_identity import TaskIdentity
    except ImportError:
        return
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, 1, 1


def _arrays(content: RecordDict, name: str) -> ArrayRecord:
    record = content[name]
    assert isinstance(record, ArrayRecord)
    return record


def _metrics(content: RecordDict) -> tuple[int, float]:
    record = content["metrics"]
    assert isinstance(record, MetricRecord)
    return int(str(record["partition-id"])), float(str(record["loss"]))


def _size(arrays: ArrayRecord) -> int:
    return sum(len(array.data) for array in arrays.values())
