"""A loopback AWS with boxes on it: what ``make demo`` and the tests talk to instead of an account.

``world.Simulator`` puts it together; ``python -m devboxd.simulator`` runs it. Nothing in the product
imports this package. Simulated boxes run real shells and commands of this machine, as this user.
"""
