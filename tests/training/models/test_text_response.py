"""What words alone say: learned from counts, and with a query."""

import torch

from training.models.text_response import TextResponse, response_regressions

NUM_PAIRS, WIDTH = 600, 16


def normalised(generator):
    return torch.nn.functional.normalize(torch.randn(NUM_PAIRS, WIDTH, generator=generator), dim=1)


def best_correlation(text, query, positive, negative, truth):
    response, found = TextResponse(WIDTH), []
    for weights in response_regressions(text, query, positive, negative):
        response.load_state_dict(weights)
        with torch.inference_mode():
            found.append(float(torch.corrcoef(torch.stack([response(text, query), truth]))[0, 1]))
    return max(found)


def test_it_learns_from_counts_what_a_text_brings():
    generator = torch.Generator().manual_seed(0)
    text, nothing = normalised(generator), torch.zeros(NUM_PAIRS, WIDTH)
    truth = 4 * text @ torch.randn(WIDTH, generator=generator)
    positive = torch.binomial(torch.full((NUM_PAIRS,), 40.0), torch.sigmoid(truth - 2), generator=generator)
    assert best_correlation(text, nothing, positive, 40 - positive, truth) > 0.97


def test_the_match_with_a_query_is_learned():
    generator = torch.Generator().manual_seed(2)
    text, query = normalised(generator), normalised(generator)
    similarity = (text * query).sum(1)
    positive = (torch.rand(NUM_PAIRS, generator=generator) < torch.sigmoid(8 * similarity)).float()
    assert best_correlation(text, query, positive, 1 - positive, similarity) > 0.9
