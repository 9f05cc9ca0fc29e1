"""Great Expectations over the curated tables, in one process. great_expectations is imported here and nowhere else."""
