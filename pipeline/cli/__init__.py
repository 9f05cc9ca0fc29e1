"""`tre`: a sub-app a room. Writes go through steps, reads go to the rooms."""
