"""One served recommendation: the row that the decision log keeps and outcomes come back to."""

from expectations.contracts.schema import Column, Table
from expectations.contracts.shop_tables import SCENARIOS

DECISIONS = Table(
    name="decisions",
    grain="one row per item of a decision",
    key=("decision_id", "item_id"),
    event_time="event_timestamp",
    columns=(
        Column(name="decision_id", type="string", required=True, description="the items served together"),
        Column(name="user_id", type="string", required=True, description="the shopper"),
        Column(name="item_id", type="string", required=True, description="the item shown"),
        Column(
            name="scenario",
            type="string",
            required=True,
            allowed=SCENARIOS,
            description="where in the shop it was shown",
        ),
        Column(name="event_timestamp", type="timestamp", required=True, description="when"),
        Column(name="position", type="integer", required=True, minimum=1, description="place, from 1"),
        Column(
            name="probability",
            type="number",
            required=True,
            minimum=0,
            maximum=1,
            description="the model's probability of the outcome",
        ),
        Column(name="text_logit", type="number", required=True, description="f, of texts and context"),
        Column(name="tabular_logit", type="number", required=True, description="g, of past outcomes"),
        Column(
            name="propensity",
            type="number",
            minimum=0,
            maximum=1,
            description="probability with which the policy chose this item",
        ),
        Column(name="bundle", type="string", required=True, description="hash of the model that decided"),
    ),
)
