import copy
from types import SimpleNamespace

import lightgbm
import numpy as np
import pytest
import torch

from expectations.errors import SettingError
from training.models import boosted_trees
from training.models.boosted_trees import BoostedTrees
from training.runtime.checkpoint import restore, trainable_state


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(4000, 6)).astype(np.float32)
    numbers[rng.random(numbers.shape) < 0.1] = np.nan
    codes = rng.integers(0, 4, size=(4000, 2))
    logit = np.where(np.nan_to_num(numbers[:, 0]) > 0, 2.0, -2.0) + codes[:, 0] - 1
    labels = (rng.random(4000) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    return torch.from_numpy(numbers), torch.from_numpy(codes), labels


def unfitted():
    settings = {"boosting_models": 2, "num_leaves": 15, "tree_learning_rate": 0.1}
    return BoostedTrees(SimpleNamespace(**settings))


def fitted(table, sampling_rate=1.0):
    numbers, codes, labels = table
    trees, features = unfitted(), np.hstack([numbers, codes]).astype(np.float32)
    trees.fit(
        lambda start: (features[start:], labels[start:], np.ones_like(labels[start:])),
        num_trees=40,
        sampling_rate=sampling_rate,
        seed=3,
    )
    assert trees.fitted
    return trees


def test_the_logit_is_the_mean_of_the_models_corrected_for_the_sampling_rate(table):
    numbers, codes, _ = table
    trees = fitted(table, sampling_rate=0.1)
    features = np.hstack([numbers, codes])
    models = [lightgbm.Booster(model_str=text) for text in trees.texts]
    expected = np.mean([model.predict(features, raw_score=True) for model in models], axis=0) + np.log(0.1)
    logit = trees(numbers, codes)
    assert len(models) == 2 and logit.dtype == torch.float32 and logit.std() > 0.5
    np.testing.assert_allclose(logit.numpy(), expected, atol=1e-5)
    torch.testing.assert_close(fitted(table)(numbers, codes) - logit, torch.full((4000,), -np.log(0.1)))


def test_contributions_differ_between_rows_as_the_logits_do(table):
    numbers, codes, _ = table
    trees = fitted(table)
    contributions = trees.contributions(numbers[:9], codes[:9])
    rest = trees(numbers[:9], codes[:9]) - contributions.sum(1)
    assert contributions.shape == (9, 8) and contributions[:, 0].abs().mean() > 0.5
    torch.testing.assert_close(rest, rest.mean().expand(9))


def test_the_same_seed_fits_the_same_trees(table):
    assert fitted(table).texts == fitted(table).texts


def test_checkpoints_and_copies_hold_the_trees(table):
    numbers, codes, _ = table
    trees, other = fitted(table), unfitted()
    assert not other.fitted
    restore({"trees": other}, trainable_state({"trees": trees}))
    for same in (other, copy.deepcopy(other)):
        assert same.fitted and torch.equal(same(numbers, codes), trees(numbers, codes))
    restore({"trees": other}, trainable_state({"trees": unfitted()}))
    assert not other.fitted


def test_without_lightgbm_none_are_fitted_and_none_are_read(table, monkeypatch):
    texts = fitted(table).texts

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(boosted_trees.importlib, "import_module", missing)
    trees = unfitted()
    assert trees.fit(lambda _: table, num_trees=4, sampling_rate=1.0, seed=0) == 0
    assert not trees.fitted
    with pytest.raises(SettingError, match="pip install lightgbm"):
        trees.load_texts(texts)


def test_a_lightgbm_that_does_not_load_says_what_it_needs(table, monkeypatch):
    def broken(name):
        raise OSError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr(boosted_trees.importlib, "import_module", broken)
    with pytest.raises(SettingError, match=r"libgomp\.so\.1.*apt-get install libgomp1"):
        fitted(table)
