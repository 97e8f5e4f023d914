"""One verb, many ends: images move between registries, stores, archives and snapshots."""
