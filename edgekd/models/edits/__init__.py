"""Changes to a built network that its checkpoint replays, a file a kind. An edit's file has this name:

apply(model: nn.Module, edit: Mapping[str, Any]) -> nn.Module      Raises ModelError where it does not fit
"""
