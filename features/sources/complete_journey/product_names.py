"""A retailer's product names in words that people and language models read.

Product catalogues abbreviate: "FRZN MEAT/MEAT DINNERS", "SFT DRNK MLT-PK BTL CARB (EXCP". A model
that was trained on English knows "frozen" and "soft drink", not "FRZN" and "SFT DRNK".
"""

import re
from collections.abc import Container, Iterable, Mapping
from types import MappingProxyType

WORDS: Mapping[str, str] = MappingProxyType(
    {
        "accs": "accessories", "accss": "accessories", "bev": "beverage", "bkd": "baked", "bn": "bean",
        "bndges": "bandages", "brd": "breaded", "brkfst": "breakfast", "btl": "bottle", "btr": "butter",
        "carb": "carbonated", "catfd": "cat food", "cb": "consumer bunch", "chix": "chicken",
        "chs": "cheese", "cke": "cake", "ckys": "cookies", "cleang": "cleaning", "cnd": "canned",
        "cndles": "candles", "cndy": "candy", "cntrl": "control", "coff": "coffee",
        "combin": "combinations", "conc": "concentrate", "cont": "contributions", "crbntd": "carbonated",
        "crkr": "crackers", "crmd": "creamed", "crystl": "crystal", "deod": "deodorant",
        "disposible": "disposable", "dl": "deli", "dnr": "dinner", "dnrs": "dinners", "dogfd": "dog food",
        "dps": "dips", "drng": "dressing", "drnk": "drink", "drnking": "drinking", "drnks": "drinks",
        "drsng": "dressing", "dsh": "dish", "elect": "electrical", "elstc": "elastic", "excp": "except",
        "fd": "food", "fds": "food", "fem": "feminine", "flavrd": "flavored", "flvr": "flavored",
        "flvrd": "flavored", "frd": "fried", "frz": "frozen", "frzn": "frozen", "gds": "goods",
        "gm": "general merchandise", "grnd": "ground", "hbc": "health and beauty", "hygn": "hygiene",
        "inf": "infant", "ing": "ingredients", "jce": "juice", "jhook": "hook display", "liq": "liquid",
        "ltr": "lighter", "merch": "merchandise", "misc": "miscellaneous", "mlk": "milk", "mlt": "multi",
        "mneral": "mineral", "mt": "meat", "mw": "microwave", "mx": "mix", "mxs": "mixes",
        "ndairy": "non-dairy", "oj": "orange juice", "pac": "packed", "pckgd": "packaged", "pk": "pack",
        "pkg": "packaged", "pkgd": "packaged", "pkld": "pickled", "pnt": "peanut", "pnut": "peanut",
        "ppk": "prepacked", "prem": "premium", "prep": "prepared", "prepack": "prepacked",
        "preportnd": "portioned", "prod": "produce", "prpck": "prepacked", "prslc": "presliced",
        "pwdr": "powder", "pwdrs": "powders", "refrgratd": "refrigerated", "refrig": "refrigerated",
        "retl": "retail", "rts": "ready to serve", "rw": "random weight", "sal": "salad", "sald": "salad",
        "saus": "sausage", "sft": "soft", "sherbts": "sherbets", "sld": "salad", "smi": "semi",
        "sndwch": "sandwich", "sngl": "single", "snks": "snacks", "snsl": "seasonal", "spec": "specialty",
        "specilaty": "specialty", "sply": "supply", "sprd": "spread", "srv": "serve", "ss": "single serve",
        "stk": "stick", "sup": "super", "supp": "supplement", "suppplies": "supplies", "sv": "service",
        "sw": "sweet", "swt": "sweet", "tiss": "tissue", "toms": "turkeys", "trsh": "trash",
        "vac": "vacuum", "veg": "vegetable", "veget": "vegetable", "whl": "whole", "whlsm": "wholesome",
        "wt": "weight", "wtr": "water", "bg": "bags", "mixs": "mixes", "bbq": "barbecue",
    }
)  # fmt: skip

VAGUE = frozenset(
    (
        "adult", "assorted", "audio", "bagged", "blends", "choice", "cones", "cooked", "cups", "fresh",
        "frozen", "furniture", "kits", "lean", "mainstream", "misc", "miscellaneous", "natural", "other",
        "oven", "pre-cooked", "precooked", "premium", "primal", "processed", "promo", "regular", "select",
        "singles", "specialty", "sticks", "super", "traditional", "utility", "value",
    )
)  # fmt: skip
"""Product types that say nothing without their category: "premium" of ice cream, of dog food …"""

_CUT = 27
_LETTERS = re.compile(r"[a-z]+")
_MEASURE = r"(?:fl oz|sq ft|oz|lb|ct|ml|l|pk|gal|qt|pt|in|ft|yd|g|kg|pc|stem|loads?|rolls?|dz|cup)"
_SIZE = re.compile(
    r"(?<![\d.])(?:\d{1,3}|(?=\.\d))(?:[./ -]\d{1,3}){0,2} ?"
    rf"{_MEASURE}(?:[/ ][\d.]{{1,5}} {_MEASURE})?\b"
)
_UNITS = {"ct": "count", "pk": "pack", "pc": "pieces", "dz": "dozen"}


def vocabulary(names: Iterable[str]) -> frozenset[str]:
    """The words of the names that are too short to be cut off."""
    return frozenset(word for name in names if len(name) < _CUT for word in _LETTERS.findall(name.lower()))


def readable(name: str, known: Container[str] = ()) -> str:
    """A catalogue's name in lower-case words.

    Colons and dashes between words become spaces. The catalogue cuts names off after 30
    characters: a bracket that stays open is left out, and so is the last word of a long name, if
    no other name has it.

    Args:
        name: as the catalogue writes it.
        known: whole words, from `vocabulary`; without them no last word is left out.

    >>> readable("FRZN MEAT/MEAT DINNERS")
    'frozen meat/meat dinners'
    """
    text = re.sub(r"\([^)]*$", " ", name.lower())
    last = _LETTERS.findall(text)[-1:]
    if known and last and len(name) >= _CUT and text.endswith(last[0]) and last[0] not in known:
        text = text.removesuffix(last[0])
    text = re.sub(r"men s\b", "men's", text)
    text = text.replace("&", " and ")
    text = re.sub(r"\s*:\s*|\s+-\s*|\.\s+|\.$", " ", text)
    text = _LETTERS.sub(lambda match: WORDS.get(match.group(), match.group()), text)
    return re.sub(r"\s+", " ", text).strip(" -/,")


def readable_size(size: str) -> str | None:
    """A package's size, such as "22 lb" or "6 pack/12 oz"; None where a code says no size.

    >>> readable_size("R    16 OZ")
    '16 oz'
    """
    match = _SIZE.search(re.sub(r"\s+", " ", size.lower()))
    if match is None:
        return None
    return re.sub(r"[a-z]+", lambda word: _UNITS.get(word.group(), word.group()), match.group())


def named_type(product_type: str, category: str | None) -> str:
    """A product type that says something alone: a vague one gets its category.

    >>> named_type("premium", "ice cream")
    'premium ice cream'
    """
    return f"{product_type} {category}" if product_type in VAGUE and category else product_type
