"""The ledger: every zone's files read together, one row per landed object and candidate. Reads only."""
