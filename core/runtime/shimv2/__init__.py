"""A client of containerd's shim API, version 2 (containerd, docs/runtime-v2.md): any shim drives our tasks."""
