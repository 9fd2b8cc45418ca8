"""f(a, c): what the words say to this shopper, a logit from texts and context.

A candidate's text meets the texts of what the shopper did. How well two texts go together depends on the
texts alone, so it is computed once for each pair of distinct texts, and a shopper's history is a weighted
sum over its column: ten thousand rows of a thousand shoppers cost one small matrix product a channel.

Candidates and topics are written in different ways ("Coupon for 3 products: …. Type A campaign from …"), and
what all candidates share hides what each is about. So each kind is read relative to its own mean, and a
likeness counts relative to the candidate's greatest likeness with any topic known from the training part.

What f learned from purchases is then parted: the candidate's mean logit over some reference shoppers is its appeal,
which topics are popular and, asked for something, what answers it; the rest is the match with this shopper. Each
has a scale of its own: where g knows better what is popular, the appeal is silent and the match is left.

An entry of the history is something that the shopper did or said. What was said has a polarity: a liked entry
counts like one that was turned to, a disliked one turns the taste away, and how far the liked ones outweigh
the disliked ones, near the candidate and overall, is an input of its own. Without feedback it is 0.

Shapes: N rows, U shoppers' histories, P distinct (candidate, query) pairs, V distinct texts, E width of a
text's vector, M channels, W width of a look, H length of a history, X entry features, K known topics.
"""

import math

import torch
from torch import Tensor, nn

from training.data.collate import Batch
from training.data.interaction_history import HISTORY_FEATURES, SENTIMENT
from training.data.transforms import Transforms
from training.models.match_inputs import ENTRY_FEATURES, MatchInputs, entry_features, weighted_sums
from training.models.request_context import ContextEncoding

SHARPEST, WIDEST = 0.01, 0.2  # differences of cosines at which a channel's likeness has fallen to 1/e
MOST = 2.0  # a likeness above the greatest known one counts up to e^MOST
FEW = 10  # as many texts of the other kind steady the mean of a kind


class TextMatch(nn.Module):
    """The candidate's look at the history, and a small network over what it saw.

    Args:
        transforms: fitted transforms; the features named context_* go with the words.
        text_width: E.
        channels: M, ways of looking, from sharp to wide.
        channel_width: W.
        width: hidden units of the network at the end.
        dropout: share of hidden units left out in training.
        num_topics: K.
        references: number of reference shoppers and length of their histories.
    """

    candidate_mean: Tensor
    topic_mean: Tensor
    topics: Tensor
    reference: Tensor
    reference_features: Tensor
    centred: Tensor

    def __init__(
        self,
        transforms: Transforms,
        *,
        text_width: int,
        channels: int,
        channel_width: int,
        width: int,
        dropout: float,
        num_topics: int,
        references: tuple[int, int],
    ) -> None:
        super().__init__()
        self.register_buffer("candidate_mean", torch.zeros(text_width))
        self.register_buffer("topic_mean", torch.zeros(text_width))
        self.register_buffer("topics", torch.zeros(num_topics, text_width))
        self.register_buffer("reference", torch.full(references, -1))
        self.register_buffer("reference_features", torch.zeros(*references, len(HISTORY_FEATURES)))
        self.register_buffer("centred", torch.tensor(0.0))
        self.spread = nn.Parameter(torch.linspace(math.log(SHARPEST), math.log(WIDEST), channels))
        self.weigh = nn.Linear(ENTRY_FEATURES, channels)
        nn.init.normal_(self.weigh.weight, std=0.1)
        nn.init.constant_(self.weigh.bias, 0.5)
        self.taste_weigh = nn.Linear(ENTRY_FEATURES, 1)
        self.taste = nn.Linear(text_width, channel_width)
        self.look = nn.Linear(text_width, channel_width)
        self.ask = nn.Linear(text_width, channel_width, bias=False)
        self.subject = nn.Linear(text_width, channel_width)
        self.context = ContextEncoding(transforms)
        self.setting = nn.Parameter(torch.zeros(self.context.width, width))
        seen = 2 * channels + 2 * channel_width + 3  # counts and totals, taste and subject, three numbers
        self.first = nn.Linear(seen, width)
        self.second = nn.Linear(width, width)
        self.out = nn.Linear(width, 1)
        self.skip = nn.Linear(seen, 1, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.personalised_scale = nn.Parameter(torch.tensor(1.0))
        self.popularity_scale = nn.Parameter(torch.tensor(1.0))
        self.opinion = nn.Parameter(torch.zeros(channels + 2))
        self.opinion_first = nn.Parameter(torch.zeros(channels + 2, width))
        for silent in (self.out.weight, self.out.bias, self.skip.weight):
            nn.init.zeros_(silent)

    def know(self, candidates_CE: Tensor, topics_KE: Tensor) -> None:
        """Take the means of both kinds of text and the known topics from the training part's texts."""
        if len(topics_KE):
            together = torch.cat([candidates_CE, topics_KE]).mean(0)
            self.topic_mean.copy_(_steadied_mean(topics_KE, together))
            self.candidate_mean.copy_(_steadied_mean(candidates_CE, together))
            self.topics.copy_(self.topic(topics_KE))

    def topic(self, vectors_VE: Tensor) -> Tensor:
        """Vectors of topics relative to their mean, of length 1."""
        return nn.functional.normalize(vectors_VE - self.topic_mean, dim=1)

    def forward(
        self,
        batch: Batch,
        vectors_VE: Tensor,
        *,
        with_attention: bool = False,
        apart_P2: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """What the words say.

        Args:
            batch: the rows.
            vectors_VE: vectors of the batch's texts.
            with_attention: whether to tell what was looked at.
            apart_P2: what `apart` says of the pairs, if it is known already.

        Returns:
            f (N,) and, if asked, what share of all that was seen each entry is, (N, H).
        """
        query_PE = vectors_VE[batch.query_text.clamp_min(0)] * (batch.query_text >= 0).float()[:, None]
        pairs = self._pairs(vectors_VE[batch.candidate_text], query_PE)
        inputs = MatchInputs(
            history=batch.history,
            features=batch.history_features,
            topics=self.topic(vectors_VE),
            person=batch.user,
            pair=batch.candidate_query,
            greatest=None if apart_P2 is None else apart_P2[:, 0],
            **pairs,
        )
        setting = self.context(batch.numeric_features, batch.categorical_features) @ self.setting
        logit_N, attention = self.logits(inputs, setting, with_attention=with_attention)
        if self.centred:
            appeal_P = self._appeal(pairs) if apart_P2 is None else apart_P2[:, 1]
            appeal_N = appeal_P[batch.candidate_query]
            return self.personalised_scale * (
                logit_N - appeal_N
            ) + self.popularity_scale * appeal_N, attention
        return self.personalised_scale * logit_N, attention

    def apart(self, text_PE: Tensor, query_PE: Tensor) -> Tensor:
        """What no shopper changes of pairs, (P, 2): greatest likeness with a known topic, and the appeal.

        Args:
            text_PE: vectors of the candidates' texts.
            query_PE: vectors of their queries, 0 where there is none.
        """
        pairs = self._pairs(text_PE, query_PE)
        appeal_P = self._appeal(pairs) if self.centred else torch.zeros_like(pairs["query_similarity"])
        return torch.stack([self._greatest(pairs["candidates"]), appeal_P], dim=1)

    def _pairs(self, text_PE: Tensor, query_PE: Tensor) -> dict[str, Tensor]:
        """The part of a meeting that is of the pairs."""
        return {
            "candidates": nn.functional.normalize(text_PE - self.candidate_mean, dim=1),
            "queries": query_PE,
            "query_similarity": (text_PE * query_PE).sum(1),
        }

    def _appeal(self, pairs: dict[str, Tensor]) -> Tensor:
        """Mean logit of each pair over the reference shoppers, (P,)."""
        num_shoppers, num_pairs = len(self.reference), len(pairs["candidates"])
        places = torch.arange(num_pairs, device=self.reference.device)
        shoppers = torch.arange(num_shoppers, device=self.reference.device)
        # Only the topics that they turned to: a served list pays for no others.
        met, history = torch.unique(self.reference.clamp_min(0), return_inverse=True)
        everyone = MatchInputs(
            history=torch.where(self.reference >= 0, history, -1),
            features=self.reference_features,
            topics=self.topics[met],
            person=shoppers.repeat_interleave(num_pairs),
            pair=places.repeat(num_shoppers),
            **pairs,
        )
        return self.logits(everyone)[0].unflatten(0, (num_shoppers, num_pairs)).mean(0)

    def logits(
        self, inputs: MatchInputs, setting_NW: Tensor | float = 0.0, *, with_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """The network's logit (N,), neither scaled nor shifted, and, if asked, the attention (N, H)."""
        person, pair, history = inputs.person, inputs.pair, inputs.history.clamp_min(0)
        entries_UHX, there_UH = entry_features(inputs.features), (inputs.history >= 0).float()
        polarity_UH = inputs.features[:, :, SENTIMENT]
        stance_UH = torch.where(polarity_UH == 0, 1.0, polarity_UH)
        acts_UH1 = torch.expm1(entries_UHX[:, :, :1]) * there_UH[:, :, None]
        voice_UHM = nn.functional.softplus(self.weigh(entries_UHX)) * acts_UH1
        weight_UHM = voice_UHM * stance_UH.clamp_min(0)[:, :, None]
        tables = self._similarity(inputs)
        counts = [
            weighted_sums(history, table_VP, weight_UHM[:, :, channel])[person, pair]
            for channel, table_VP in enumerate(tables)
        ]
        taste_UH = nn.functional.softplus(self.taste_weigh(entries_UHX)).squeeze(2) * there_UH
        taste_UH = taste_UH / taste_UH.sum(1, keepdim=True).clamp_min(1e-6)
        taste_UW = weighted_sums(history, self.taste(inputs.topics), taste_UH * stance_UH)
        look_PW = self.look(inputs.candidates) + self.ask(inputs.queries)
        length_U1 = torch.log1p(there_UH.sum(1, keepdim=True))
        of_person = torch.cat(
            [torch.log1p(weight_UHM.sum(1)), length_U1 / 3, (length_U1 == 0).float()], dim=1
        )
        subject_PW = torch.relu(self.subject(inputs.candidates))
        of_pair = torch.cat([subject_PW, inputs.query_similarity[:, None]], dim=1)
        met = [torch.log1p(torch.stack(counts, dim=1)), taste_UW[person] * look_PW[pair]]
        seen = torch.cat([*met, of_person[person], of_pair[pair]], dim=1)
        opinion_NO = self._opinions(inputs, voice_UHM, tables)
        hidden = self.dropout(torch.relu(self.first(seen) + opinion_NO @ self.opinion_first + setting_NW))
        hidden = self.dropout(torch.relu(self.second(hidden)))
        logit_N = (self.out(hidden) + self.skip(seen)).squeeze(1) + opinion_NO @ self.opinion
        if not with_attention:
            return logit_N, None
        cell_NH = history[person] * len(inputs.candidates) + pair[:, None]
        found_NHM = torch.stack([table.flatten()[cell_NH] for table in tables], 2) * weight_UHM[person]
        return logit_N, (found_NHM / (1 + found_NHM.sum(1, keepdim=True))).mean(2)

    def _opinions(self, inputs: MatchInputs, voice_UHM: Tensor, tables: list[Tensor]) -> Tensor:
        """How far the liked entries outweigh the disliked, -1 to 1, and how much was said, (N, O).

        Near the candidate as each channel sees it, then overall; 0 where nothing was said.
        """
        polarity_UH, history = inputs.features[:, :, SENTIMENT], inputs.history.clamp_min(0)
        if not polarity_UH.any():
            return voice_UHM.new_zeros(len(inputs.person), len(self.opinion))
        found = []
        for channel, table_VP in enumerate(tables):
            said_UH = voice_UHM[:, :, channel] * polarity_UH
            balance_UP = weighted_sums(history, table_VP, said_UH)
            found.append(
                (balance_UP / (1 + weighted_sums(history, table_VP, said_UH.abs())))[
                    inputs.person, inputs.pair
                ]
            )
        said_UH = voice_UHM.mean(2) * polarity_UH
        total_U = said_UH.abs().sum(1)
        of_person = torch.stack([said_UH.sum(1) / (1 + total_U), torch.log1p(total_U)], dim=1)
        return torch.cat([torch.stack(found, dim=1), of_person[inputs.person]], dim=1)

    def _similarity(self, inputs: MatchInputs) -> list[Tensor]:
        """How much each topic goes with each pair, one table (V, P) a channel: 1 where none is known to more."""
        greatest_P = self._greatest(inputs.candidates) if inputs.greatest is None else inputs.greatest
        less_VP = inputs.topics @ inputs.candidates.T - greatest_P
        return [torch.exp((less_VP * torch.exp(-spread)).clamp(max=MOST)) for spread in self.spread]

    def _greatest(self, candidates_PE: Tensor) -> Tensor:
        """The greatest likeness of each candidate with a topic known from the training part, (P,)."""
        if not len(self.topics):
            return torch.ones(len(candidates_PE), device=candidates_PE.device)
        return (candidates_PE @ self.topics.T).amax(1)


def _steadied_mean(vectors_VE: Tensor, other_E: Tensor) -> Tensor:
    """Mean of a kind of text, as if FEW more of it were like the other; so one text alone is not all mean."""
    return (vectors_VE.sum(0) + FEW * other_E) / (len(vectors_VE) + FEW)
