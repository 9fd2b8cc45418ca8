import lightgbm
import numpy as np
import pytest
import torch

from expectations.errors import SettingError
from training.models import boosted_trees as trees
from training.models.boosted_trees import BoostedTrees


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(4000, 6)).astype(np.float32)
    numbers[rng.random(numbers.shape) < 0.1] = np.nan
    numbers[:, 5] = np.nan_to_num(numbers[:, 5])  # a feature without unknown values while growing
    codes = rng.integers(0, 4, size=(4000, 2))
    logit = np.where(np.nan_to_num(numbers[:, 0]) > 0, 2.0, -2.0) + codes[:, 0] - 1
    return numbers, codes, (rng.random(4000) < 1 / (1 + np.exp(-logit))).astype(np.float32)


def grown(table, *, models=2, leaves=15, **settings):
    numbers, codes, labels = table
    model = BoostedTrees(models, 40, leaves)
    features = np.hstack([numbers, codes.astype(np.float32)])
    draws = [(features[start:], labels[start:]) for start in range(models)]
    assert model.fit(draws.__getitem__, **{"sampling_rate": 1.0, "learning_rate": 0.1, "seed": 3} | settings)
    return model, features


@pytest.mark.parametrize("leaves", [2, 15, 16, 32, 63])
def test_tensors_say_what_lightgbm_says(table, monkeypatch, leaves):
    kept = []
    train = lightgbm.train

    def noted(*args, **kwargs):
        kept.append(train(*args, **kwargs))
        return kept[-1]

    monkeypatch.setattr(lightgbm, "train", noted)
    monkeypatch.setattr(trees, "MIN_DATA_IN_LEAF", 20)
    monkeypatch.setattr(trees, "MAX_DEPTH", 40)
    model, features = grown(table, leaves=leaves)
    assert len(kept) == 2
    asked = features.copy()
    asked[::7, 5] = np.nan  # unknown where no unknown value was met
    asked[::5, 0] = 0.0
    said = model(torch.from_numpy(asked[:, :6]), torch.from_numpy(asked[:, 6:]).long()).numpy()
    expected = np.mean([one.predict(asked, raw_score=True) for one in kept], axis=0)
    np.testing.assert_allclose(said, expected, rtol=1e-4, atol=1e-4)
    assert said.std() > 0.5


@pytest.mark.parametrize("leaves", [2, 15, 40])
def test_what_a_feature_adds_is_what_is_lost_at_its_typical_value(table, leaves):
    model, _ = grown(table, leaves=leaves)
    numbers, codes = torch.from_numpy(table[0][:9]), torch.from_numpy(table[1][:9])
    typical, usual = torch.tensor([0.1, torch.nan, -0.5, 0.0, 1.0, 0.0]), torch.tensor([1, 2])
    added = model.ablation(numbers, codes, typical, usual)
    assert added.shape == (9, 8) and added.abs().sum() > 0
    for feature in range(8):
        occluded = numbers.clone(), codes.clone()
        if feature < 6:
            occluded[0][:, feature] = typical[feature]
        else:
            occluded[1][:, feature - 6] = usual[feature - 6]
        expected = model(numbers, codes) - model(*occluded)
        torch.testing.assert_close(added[:, feature], expected, rtol=0, atol=1e-5)


def test_a_drawn_share_of_the_rows_without_an_answer_is_made_up_for(table):
    numbers, codes = torch.from_numpy(table[0]), torch.from_numpy(table[1])
    whole, _ = grown(table)
    share, _ = grown(table, sampling_rate=0.1)
    difference = whole(numbers, codes) - share(numbers, codes)
    torch.testing.assert_close(difference, torch.full_like(difference, -np.log(0.1)))


def test_nothing_is_said_before_they_are_grown(table):
    assert not BoostedTrees(2, 5, 7).fitted
    assert BoostedTrees(2, 5, 7)(torch.from_numpy(table[0]), torch.from_numpy(table[1])).abs().sum() == 0


def test_the_same_seed_grows_the_same_trees(table):
    one, other = grown(table)[0].state_dict(), grown(table)[0].state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_without_lightgbm_they_are_not_grown(table, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(trees.importlib, "import_module", missing)
    model = BoostedTrees(2, 5, 7)
    assert not model.fit(lambda _: (table[0], table[2]), sampling_rate=1.0, learning_rate=0.1, seed=0)
    assert not model.fitted


def test_a_lightgbm_that_does_not_load_says_what_it_needs(table, monkeypatch):
    def broken(name):
        raise OSError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr(trees.importlib, "import_module", broken)
    with pytest.raises(SettingError, match=r"libgomp\.so\.1.*apt-get install libgomp1"):
        BoostedTrees(2, 5, 7).fit(
            lambda _: (table[0], table[2]), sampling_rate=1.0, learning_rate=0.1, seed=0
        )
