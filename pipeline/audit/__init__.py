"""Audits over a release: each a question in plain words, the attributes it needs, its figures and its page."""
