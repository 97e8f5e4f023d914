"""Steps for the configuration file, one module a version."""
