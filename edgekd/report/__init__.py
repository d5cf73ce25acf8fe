"""One self-contained page about a run: `record` says what it holds, `html` renders it."""
