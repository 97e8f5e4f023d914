"""One controller a kind: what it looks at, what it plans (in `decide`), what its status says."""
