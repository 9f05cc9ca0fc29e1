"""Retrieve: ask a PACS for what is already there, write down what it owes, fetch it into landing, and reconcile."""
