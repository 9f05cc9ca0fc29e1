"""Stage: landing → a frozen batch. Each object is listed, read once, admitted or refused by reason, and sharded."""
