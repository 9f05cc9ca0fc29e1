"""tre-ingest: from PACS to a trusted research environment."""
