"""May it be used, and may it leave: eligibility, permitted people, approval."""
