"""f(a, c): the text model's logit of a candidate for a user, from texts and context.

A candidate's text is compared with the texts of the user's interactions. The similarity of two texts depends on
the texts alone, so it is computed once for each pair of distinct texts, and a user's history is a weighted sum over
its column: ten thousand rows of a thousand users cost one small matrix product a kernel. The kernels, from sharp
to wide, are like those of K-NRM (Xiong et al. 2017, "End-to-End Neural Ad-hoc Ranking with Kernel Pooling").

Candidates and topics are written in different ways ("Coupon for 3 products: …. Type A campaign from …"), and
what all candidates share hides what each is about. So each kind is centred by its own mean, and a cosine similarity
counts relative to the candidate's greatest similarity with any topic known from the training part.

What f learned from next interactions is then decomposed: the candidate's mean logit over some reference users is its
popularity part (which topics are popular and, for a query, what matches it); the rest is the personalised part. The
third part needs no history: the response to the words alone (`training.models.text_response`); nor does the fourth, to
the characters (`training.models.lexical_response`). Each part has a scale of its own: where g knows better what is
popular, the popularity part gets scale 0.

An entry of the history is an interaction or feedback in words. Feedback has a sentiment: a positive entry counts
like an interaction, a negative one turns the user's profile away, and the balance of positive and negative ones,
near the candidate and overall, is an input of its own. Without feedback it is 0.

Shapes: N rows, U users' histories, P distinct (candidate, query) pairs, V distinct texts, E width of a
text's vector, M kernels, W projection size, H length of a history, X entry features, K known topics,
Z features of the network.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.config.recipe import TextModelSettings
from training.data.collate import Batch
from training.data.interaction_history import HISTORY_FEATURES, SENTIMENT
from training.data.transforms import Transforms
from training.models.dropout import Dropout
from training.models.encodings import ContextEncoding
from training.models.lexical_response import LexicalResponse
from training.models.text_response import TextResponse

MIN_BANDWIDTH, MAX_BANDWIDTH = 0.01, 0.2  # cosine differences at which a kernel has fallen to 1/e
MAX_EXPONENT = 2.0  # a similarity above the greatest known one counts up to e^MAX_EXPONENT
PRIOR_COUNT = 10  # texts of both kinds that the mean of one is shrunk by
ENTRY_FEATURES = 5
TEXT_PARTS = ("personalised", "popularity", "response", "lexical")


@dataclass(frozen=True, kw_only=True)
class MatchInputs:
    """Histories and candidates that are matched; topics and candidates relative to their means, of length 1."""

    history: Tensor  # (U, H) places among the topics; -1: padding
    features: Tensor  # (U, H, 4) events, amount, days ago, sentiment
    topics: Tensor  # (V, E)
    candidates: Tensor  # (P, E)
    queries: Tensor  # (P, E) 0 where there is none
    query_similarity: Tensor  # (P,) cosine of candidate and query
    user: Tensor  # (N,) history of each row
    candidate_query: Tensor  # (N,) pair of each row
    max_similarity: Tensor | None = None  # (P,) of each candidate with a known topic; None: not computed yet


class TextMatch(nn.Module):
    """Kernel attention of a candidate over the history, and a small network over what it gives.

    Args:
        transforms: fitted transforms; the features named context_* are its context.
        settings: M, W, hidden units and dropout of the network at the end.
        text_width: E.
        num_topics: K.
        reference_shape: number of reference users and length of their histories.
    """

    def __init__(
        self,
        transforms: Transforms,
        settings: TextModelSettings,
        *,
        text_width: int,
        num_topics: int,
        reference_shape: tuple[int, int],
    ) -> None:
        super().__init__()
        num_kernels, projection_size, hidden_size = (
            settings.num_kernels,
            settings.projection_size,
            settings.hidden_size,
        )
        self.candidate_mean = nn.Buffer(torch.zeros(text_width))
        self.topic_mean = nn.Buffer(torch.zeros(text_width))
        self.topics = nn.Buffer(torch.zeros(num_topics, text_width))
        self.reference_history = nn.Buffer(torch.full(reference_shape, -1))
        self.reference_features = nn.Buffer(torch.zeros(*reference_shape, len(HISTORY_FEATURES)))
        self.centred = nn.Buffer(torch.tensor(0.0))
        self.log_bandwidth = nn.Parameter(
            torch.linspace(math.log(MIN_BANDWIDTH), math.log(MAX_BANDWIDTH), num_kernels)
        )
        self.entry_weight = nn.Linear(ENTRY_FEATURES, num_kernels)
        nn.init.normal_(self.entry_weight.weight, std=0.1)
        nn.init.constant_(self.entry_weight.bias, 0.5)
        self.profile_weight = nn.Linear(ENTRY_FEATURES, 1)
        self.profile = nn.Linear(text_width, projection_size)
        self.candidate = nn.Linear(text_width, projection_size)
        self.query = nn.Linear(text_width, projection_size, bias=False)
        self.topicality = nn.Linear(text_width, projection_size)
        self.context = ContextEncoding(transforms)
        self.context_weight = nn.Parameter(torch.zeros(self.context.width, hidden_size))
        # Kernels near and overall, projections, three numbers.
        num_features = 2 * num_kernels + 2 * projection_size + 3
        self.first = nn.Linear(num_features, hidden_size)
        self.second = nn.Linear(hidden_size, hidden_size)
        self.out = nn.Linear(hidden_size, 1)
        self.skip = nn.Linear(num_features, 1, bias=False)
        self.dropout = Dropout(settings.dropout)
        self.response = TextResponse(text_width)
        self.lexical = LexicalResponse()
        self.scales = nn.Parameter(torch.tensor([1.0, 0.0, 0.0, 0.0]))  # of TEXT_PARTS
        self.sentiment_out = nn.Parameter(torch.zeros(num_kernels + 2))
        self.sentiment_first = nn.Parameter(torch.zeros(num_kernels + 2, hidden_size))
        for zero_start in (self.out.weight, self.out.bias, self.skip.weight):
            nn.init.zeros_(zero_start)

    def set_topics(self, candidates_CE: Tensor, topics_KE: Tensor) -> None:
        """Take the means of both kinds of text and the known topics from the training part's vectors."""
        if len(topics_KE):
            overall_E = torch.cat([candidates_CE, topics_KE]).mean(0)
            self.topic_mean.copy_(_shrunken_mean(topics_KE, overall_E))
            self.candidate_mean.copy_(_shrunken_mean(candidates_CE, overall_E))
            self.topics.copy_(self.topic_vectors(topics_KE))

    def topic_vectors(self, text_vectors_VE: Tensor) -> Tensor:
        """Vectors of topics, centred by their mean, of length 1, (V, E)."""
        return nn.functional.normalize(text_vectors_VE - self.topic_mean, dim=1)

    def forward(
        self,
        batch: Batch,
        text_vectors_VE: Tensor,
        *,
        with_attention: bool = False,
        user_independent_P4: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The parts of the logit f of rows; f is their sum by `scales`.

        Args:
            batch: the rows.
            text_vectors_VE: vectors of the batch's texts.
            with_attention: whether to give the attention.
            user_independent_P4: what `user_independent` gives for the pairs, where it is known already.

        Returns:
            TEXT_PARTS (N, 4) and, if asked, the attention to each entry of the history, (N, H).
        """
        query_PE = text_vectors_VE[batch.query_text.clamp_min(0)] * (batch.query_text >= 0).float()[:, None]
        text_PE = text_vectors_VE[batch.candidate_text]
        pairs = self._candidate_inputs(text_PE, query_PE)
        if user_independent_P4 is None:
            parts_P3 = self._user_independent_parts(pairs, text_PE, query_PE, batch.lexical)
        else:
            parts_P3 = user_independent_P4[:, 1:]
        inputs = MatchInputs(
            history=batch.history,
            features=batch.history_features,
            topics=self.topic_vectors(text_vectors_VE),
            user=batch.user,
            candidate_query=batch.candidate_query,
            max_similarity=None if user_independent_P4 is None else user_independent_P4[:, 0],
            **pairs,
        )
        context_NW = self.context(batch.numeric_features, batch.categorical_features) @ self.context_weight
        logit_N, attention = self.logits(inputs, context_NW, with_attention=with_attention)
        parts_N3 = parts_P3[batch.candidate_query]
        return torch.cat([(logit_N - parts_N3[:, 0])[:, None], parts_N3], dim=1), attention

    def user_independent(self, text_PE: Tensor, query_PE: Tensor, lexical_P: Tensor) -> Tensor:
        """What of pairs no user changes, (P, 4): greatest similarity with a known topic, popularity, response, lexical.

        Args:
            text_PE: vectors of the candidates' texts.
            query_PE: vectors of their queries, 0 where there is none.
            lexical_P: what `lexical` gives for the pairs.
        """
        pairs = self._candidate_inputs(text_PE, query_PE)
        parts_P3 = self._user_independent_parts(pairs, text_PE, query_PE, lexical_P)
        return torch.cat([self._max_similarity(pairs["candidates"])[:, None], parts_P3], dim=1)

    def _user_independent_parts(
        self, pairs: dict[str, Tensor], text_PE: Tensor, query_PE: Tensor, lexical_P: Tensor
    ) -> Tensor:
        return torch.stack(
            [self._popularity_logit(pairs), self.response(text_PE, query_PE), lexical_P], dim=1
        )

    def _candidate_inputs(self, text_PE: Tensor, query_PE: Tensor) -> dict[str, Tensor]:
        """Those of the inputs that belong to the pairs."""
        return {
            "candidates": nn.functional.normalize(text_PE - self.candidate_mean, dim=1),
            "queries": query_PE,
            "query_similarity": (text_PE * query_PE).sum(1),
        }

    def _popularity_logit(self, pairs: dict[str, Tensor]) -> Tensor:
        """Mean logit of each pair over the reference users, (P,); 0 where f is not centred by them."""
        if not self.centred:
            return torch.zeros_like(pairs["query_similarity"])
        num_references, num_pairs = len(self.reference_history), len(pairs["candidates"])
        device = self.reference_history.device
        # Only the topics of their histories: a served list pays for no others.
        distinct_topics, history = torch.unique(self.reference_history.clamp_min(0), return_inverse=True)
        inputs = MatchInputs(
            history=torch.where(self.reference_history >= 0, history, -1),
            features=self.reference_features,
            topics=self.topics[distinct_topics],
            user=torch.arange(num_references, device=device).repeat_interleave(num_pairs),
            candidate_query=torch.arange(num_pairs, device=device).repeat(num_references),
            **pairs,
        )
        return self.logits(inputs)[0].unflatten(0, (num_references, num_pairs)).mean(0)

    def logits(
        self, inputs: MatchInputs, context_NW: Tensor | float = 0.0, *, with_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """The network's logit (N,), neither scaled nor shifted, and, if asked, the attention (N, H)."""
        user, pair, history = inputs.user, inputs.candidate_query, inputs.history.clamp_min(0)
        entries_UHX, present_UH = entry_features(inputs.features), (inputs.history >= 0).float()
        sentiment_UH = inputs.features[:, :, SENTIMENT]
        sign_UH = torch.where(sentiment_UH == 0, 1.0, sentiment_UH)
        events_UH1 = torch.expm1(entries_UHX[:, :, :1]) * present_UH[:, :, None]
        strength_UHM = nn.functional.softplus(self.entry_weight(entries_UHX)) * events_UH1
        weight_UHM = strength_UHM * sign_UH.clamp_min(0)[:, :, None]
        similarities = self._similarity(inputs)
        kernels = [
            weighted_sums(history, similarity_VP, weight_UHM[:, :, kernel])[user, pair]
            for kernel, similarity_VP in enumerate(similarities)
        ]
        profile_UH = nn.functional.softplus(self.profile_weight(entries_UHX)).squeeze(2) * present_UH
        profile_UH = profile_UH / profile_UH.sum(1, keepdim=True).clamp_min(1e-6)
        profile_UW = weighted_sums(history, self.profile(inputs.topics), profile_UH * sign_UH)
        candidate_PW = self.candidate(inputs.candidates) + self.query(inputs.queries)
        length_U1 = torch.log1p(present_UH.sum(1, keepdim=True))
        user_features = torch.cat(
            [torch.log1p(weight_UHM.sum(1)), length_U1 / 3, (length_U1 == 0).float()], dim=1
        )
        topicality_PW = torch.relu(self.topicality(inputs.candidates))
        candidate_features = torch.cat([topicality_PW, inputs.query_similarity[:, None]], dim=1)
        matched = [torch.log1p(torch.stack(kernels, dim=1)), profile_UW[user] * candidate_PW[pair]]
        features_NZ = torch.cat([*matched, user_features[user], candidate_features[pair]], dim=1)
        sentiment_NO = self._sentiment_features(inputs, strength_UHM, similarities)
        hidden = self.first(features_NZ) + sentiment_NO @ self.sentiment_first + context_NW
        hidden = self.dropout(torch.relu(self.second(self.dropout(torch.relu(hidden)))))
        logit_N = (self.out(hidden) + self.skip(features_NZ)).squeeze(1) + sentiment_NO @ self.sentiment_out
        if not with_attention:
            return logit_N, None
        cell_NH = history[user] * len(inputs.candidates) + pair[:, None]
        similarity_NHM = torch.stack([similarity_VP.flatten()[cell_NH] for similarity_VP in similarities], 2)
        attention_NHM = similarity_NHM * weight_UHM[user]
        return logit_N, (attention_NHM / (1 + attention_NHM.sum(1, keepdim=True))).mean(2)

    def _sentiment_features(
        self, inputs: MatchInputs, strength_UHM: Tensor, similarities: list[Tensor]
    ) -> Tensor:
        """Balance of positive and negative feedback, -1 to 1, and how much feedback there is, (N, O).

        Near the candidate by each kernel, then overall; 0 where there is no feedback.
        """
        sentiment_UH, history = inputs.features[:, :, SENTIMENT], inputs.history.clamp_min(0)
        if not sentiment_UH.any():
            return strength_UHM.new_zeros(len(inputs.user), len(self.sentiment_out))
        found = []
        for kernel, similarity_VP in enumerate(similarities):
            feedback_UH = strength_UHM[:, :, kernel] * sentiment_UH
            balance_UP = weighted_sums(history, similarity_VP, feedback_UH)
            balance_UP = balance_UP / (1 + weighted_sums(history, similarity_VP, feedback_UH.abs()))
            found.append(balance_UP[inputs.user, inputs.candidate_query])
        feedback_UH = strength_UHM.mean(2) * sentiment_UH
        total_U = feedback_UH.abs().sum(1)
        user_features = torch.stack([feedback_UH.sum(1) / (1 + total_U), torch.log1p(total_U)], dim=1)
        return torch.cat([torch.stack(found, dim=1), user_features[inputs.user]], dim=1)

    def _similarity(self, inputs: MatchInputs) -> list[Tensor]:
        """Similarity of each topic and pair, one (V, P) a kernel: 1 where no known topic is more similar."""
        max_similarity_P = inputs.max_similarity
        if max_similarity_P is None:
            max_similarity_P = self._max_similarity(inputs.candidates)
        difference_VP = inputs.topics @ inputs.candidates.T - max_similarity_P
        return [
            torch.exp((difference_VP * torch.exp(-log_bandwidth)).clamp(max=MAX_EXPONENT))
            for log_bandwidth in self.log_bandwidth
        ]

    def _max_similarity(self, candidates_PE: Tensor) -> Tensor:
        """The greatest similarity of each candidate with a topic known from the training part, (P,)."""
        if not len(self.topics):
            return torch.ones(len(candidates_PE), device=candidates_PE.device)
        return (candidates_PE @ self.topics.T).amax(1)


def _shrunken_mean(text_vectors_VE: Tensor, prior_E: Tensor) -> Tensor:
    """Mean of a kind of text, as if PRIOR_COUNT more of it lay at the prior; so one text alone is not all mean."""
    return (text_vectors_VE.sum(0) + PRIOR_COUNT * prior_E) / (len(text_vectors_VE) + PRIOR_COUNT)


def entry_features(raw_NH4: Tensor) -> Tensor:
    """Events, amount and days ago as X numbers near 1: logarithms, two rates of decay, a constant."""
    events, amounts, days = raw_NH4[:, :, :SENTIMENT].clamp_min(0).unbind(2)
    decays = [torch.exp(-days / 14), torch.exp(-days / 90)]
    ones = torch.ones_like(days)
    return torch.stack([torch.log1p(events), torch.log1p(amounts) / 3, *decays, ones], dim=2)


def weighted_sums(index_UH: Tensor, table_VP: Tensor, weights_UH: Tensor) -> Tensor:
    """Sum over each history of the table's rows by weight, (U, P)."""
    return nn.functional.embedding_bag(index_UH, table_VP, per_sample_weights=weights_UH, mode="sum")
