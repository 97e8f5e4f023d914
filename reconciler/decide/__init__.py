"""Pure decisions: facts in, plans and statuses out."""
