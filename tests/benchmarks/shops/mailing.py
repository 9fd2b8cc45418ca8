"""A randomised e-mail campaign (Hillstrom's MineThatData challenge): who visits the shop after which mail?"""

from pathlib import Path

import pandas as pd

from tests.benchmarks.shops.shop import Shop, write_files

QUICK_CUSTOMERS = 2000
SENT = pd.Timestamp("2008-03-20")  # the data name no day
MAILS = {
    "Mens E-Mail": "An e-mail that shows men's merchandise",
    "Womens E-Mail": "An e-mail that shows women's merchandise",
}


def write(data: Path, folder: Path, quick: bool) -> None:
    """A customer is a user with attributes, a mail an item, a visit the outcome; who got no mail is left out."""
    found = pd.read_parquet(data / "hillstrom.parquet")
    found.insert(0, "customer", [f"customer {number}" for number in found.index])
    found = found[found["segment"].isin(MAILS)].assign(sent=SENT)
    if quick:
        found = found.sample(QUICK_CUSTOMERS, random_state=0)
    customers = found.drop(columns=["segment", "visit", "conversion", "spend", "sent"])
    mails = pd.DataFrame({"item_id": MAILS.keys(), "text": MAILS.values()})
    sent = found[["customer", "segment", "sent", "visit"]]
    write_files(folder, "mailing", {"customers": customers, "mails": mails, "sent": sent})


SHOP = Shop(
    name="mailing",
    about=(
        "A randomised e-mail campaign (Hillstrom 2008): two mails, 42,694 customers who got one, eight attributes "
        "of each; a visit within two weeks is a positive. Customers without a mail saw no item and are left out. "
        'No times: whole customers are drawn into the parts (`[split] by = "user_id"`).'
    ),
    data="hillstrom_email",
    write=write,
)
