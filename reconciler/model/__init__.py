"""Kinds, identity, conditions, actions, outcome: values only."""
