"""Networks of sandboxes (CNI): begins with the sandboxes' own issue."""
