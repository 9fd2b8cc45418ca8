"""All shops of the benchmark, in the order of the page."""

from tests.benchmarks.shops import bandit, books, headlines, journey, known, mailing, reviews, searches
from tests.benchmarks.shops.shop import Shop

SHOPS: dict[str, Shop] = {
    module.SHOP.name: module.SHOP
    for module in (journey, headlines, mailing, bandit, books, reviews, known, searches)
}
