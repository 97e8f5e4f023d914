"""What people bring instead of manifests (Pods, compose files, containerd's containers) as manifests: pure, no I/O."""
