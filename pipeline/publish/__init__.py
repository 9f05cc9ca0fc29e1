"""From a candidate to a release: seal what is to be approved, publish exactly that, and prove it to its readers."""
