"""Where networks come from, a file a source. A source's file has these names:

names() -> tuple[str, ...]                                              the classifiers it can build
build(name, *, num_classes, pretrained=False, **arguments) -> nn.Module      pretrained: published weights, but for a
                                                                        last layer of another number of classes
published_classes(name) -> int                                          how many its published weights know, 0 for
                                                                        weights without a last layer; downloads nothing
"""
