"""One self-contained page about a run: `record` defines its content, `html` renders it."""
