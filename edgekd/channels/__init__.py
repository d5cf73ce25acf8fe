"""Follows the channels of a network through the operators that it executes, for pruning and for equalization."""
