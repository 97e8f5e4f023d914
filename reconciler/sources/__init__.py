"""Where desired state comes from: manifests on disk, so far."""
