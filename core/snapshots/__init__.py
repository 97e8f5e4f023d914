"""Root file systems: lineage, drivers, applying layers."""
