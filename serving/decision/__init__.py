"""What to show, of what may be shown: eligibility, caps, value, exploration.

In: a shop's rules and policy, the attributes and scores of candidates, counts of earlier exposures, a seeded generator.
Out: the items shown with their exact propensities, and why each other one was left out. No HTTP, no store.
"""
