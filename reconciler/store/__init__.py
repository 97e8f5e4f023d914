"""The object store: a small port, a durable backend, functions over the port."""
