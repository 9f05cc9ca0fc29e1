"""Tables from the facts of de-identified images. Reads the candidate zone only; never sees an identity."""
