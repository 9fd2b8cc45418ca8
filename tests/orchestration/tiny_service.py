"""A recommendation API as small as it can be, for the tests of what starts it."""

import bentoml


@bentoml.service
class Recommender:
    @bentoml.api
    def recommend(self, user_id: str, scenario: str, k: int) -> dict:
        item = {
            "item_id": "c1",
            "text": f"a coupon for {user_id}",
            "probability": 0.25,
            "text_logit": 1.0,
            "tabular_logit": -2.1,
            "reasons": ["bought coffee"],
        }
        return {
            "user_id": user_id,
            "scenario": scenario,
            "bundle": "b",
            "items": [item] * k,
            "cold_start": False,
        }
