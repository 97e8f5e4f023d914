"""Blobs by digest: ingest, verify, publish, pin, collect."""
