"""ttrpc, the small RPC that containerd and its shims speak over a Unix socket (containerd/ttrpc, PROTOCOL.md)."""
