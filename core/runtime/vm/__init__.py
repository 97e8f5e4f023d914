"""Virtual machines as sandboxes: QEMU on the host, a small agent in the guest, one framed stream between them."""
