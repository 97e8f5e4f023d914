"""OCI specs, bundles, sandboxers and shims."""
