"""Where networks come from, a file a source. A source's file has these names:

names() -> tuple[str, ...]                                              the classifiers it can build
build(name, *, num_classes, pretrained=False, **arguments) -> nn.Module
"""
