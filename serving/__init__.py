"""The approved model behind an HTTP API.

In: a bundle that the gate approved, with the feature rows and the online store of its source; requests.
Out: ranked lists with the probability, its two logits and the reasons of each item.
"""
