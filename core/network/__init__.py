"""Networks of sandboxes: configuration lists and the plugins that carry them out (CNI spec 1.0)."""
