"""Plugins for edgekd: a loss, a data source and a backend."""
