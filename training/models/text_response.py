"""The direct path of f from words to response: what a candidate's text, and its match with a query, say by themselves.

The history of a user says nothing where there is none: an anonymous reader, a first visit, a search. There the words
alone must be learned from. So f has a linear response of the text's vector, of its product with the query's, entry by
entry, and of the cosine similarity of both, whose scale is learned too. It starts from a logistic regression on the
vectors of the language model as it comes, so it is never behind one; fine-tuning goes on from there.

The regression is torch's L-BFGS: scikit-learn's penalises every feature, the similarity too. Its ridge penalty (Hoerl
& Kennard 1970) is chosen by the validation part.

Shapes: P distinct (candidate, query) pairs, E width of a text's vector.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

RIDGES = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)  # of the information in the labels, strong to weak
MAX_ITERATIONS = 100  # of L-BFGS, each penalty going on from the stronger one's weights


class TextResponse(nn.Module):
    """Logit of (candidate, query) pairs, linear in their vectors; 0 until it is fitted.

    Args:
        text_width: E.
    """

    mean: Tensor

    def __init__(self, text_width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(text_width))
        self.text = nn.Parameter(torch.zeros(text_width))
        self.query = nn.Parameter(torch.zeros(text_width))
        self.similarity = nn.Parameter(torch.zeros(1))

    def forward(self, text_PE: Tensor, query_PE: Tensor) -> Tensor:
        """Logits (P,); a pair without a query has zeros in `query_PE`."""
        product_PE = text_PE * query_PE
        return (
            (text_PE - self.mean) @ self.text + product_PE @ self.query + product_PE.sum(1) * self.similarity
        )


@torch.enable_grad()
def response_regressions(
    text_PE: Tensor, query_PE: Tensor, positive_P: Tensor, negative_P: Tensor
) -> Iterator[dict[str, Tensor]]:
    """Weights of a `TextResponse` by every penalty, strong to weak: logistic regressions on what was observed of pairs.

    Args:
        text_PE: vectors of the pairs' texts.
        query_PE: vectors of their queries, 0 where there is none.
        positive_P: weight of each pair's positive outcomes.
        negative_P: weight of its negative ones.
    """
    observed_P = positive_P + negative_P
    mean_E = (observed_P @ text_PE) / observed_P.sum()
    product_PE = text_PE * query_PE
    features_PD = torch.cat([text_PE - mean_E, product_PE, product_PE.sum(1, keepdim=True)], dim=1)
    information = float(positive_P.sum() * negative_P.sum() / observed_P.sum())
    weights_D = features_PD.new_zeros(features_PD.shape[1], requires_grad=True)
    log_odds = positive_P.sum().log() - negative_P.sum().log()
    intercept = log_odds.detach().clone().requires_grad_()
    for ridge in RIDGES:
        optimizer = torch.optim.LBFGS(
            [weights_D, intercept], max_iter=MAX_ITERATIONS, line_search_fn="strong_wolfe"
        )

        def mean_loss(ridge: float = ridge, optimizer: torch.optim.Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            logit_P = features_PD @ weights_D + intercept
            loss = (positive_P * softplus(-logit_P) + negative_P * softplus(logit_P)).sum() / information
            loss = loss + ridge * weights_D[:-1].square().sum() / 2
            loss.backward()
            return loss

        optimizer.step(mean_loss)
        text, query, similarity = weights_D.detach().clone().split([len(mean_E), len(mean_E), 1])
        yield {"mean": mean_E, "text": text, "query": query, "similarity": similarity}
