"""Desired state: the model, the decisions, the engine and the command line. Touches the node only through core."""

from typing import Final

__version__: Final = "0.1.0"
