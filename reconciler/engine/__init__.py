"""The engine: which key is looked at when, by whom, and that there is only one engine on a node."""
