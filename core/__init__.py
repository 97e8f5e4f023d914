"""Mechanisms of a node: blobs, transfer, snapshots, networks and runtimes. Knows nothing of desired state."""
