"""Learning a shop's language before anything else: the stage `domain`, from texts alone.

| objective | what is learned | for |
|---|---|---|
| masked | the hidden tokens of a text (Devlin et al. 2019, "BERT", section 3.1) | encoders |
| causal | each next token | decoders |
| contrastive | which of many texts is the same, read twice with dropout (Gao et al. 2021, "SimCSE") | both |

What learns is what learns later too (recipe `trainable_layers`, `adapter`), and the head that guesses tokens is
thrown away after it. Only texts that were known before the validation part are read, and none that is first seen
there or in the test part; the refit begins with the language model that this stage left.

Shapes: B texts, L tokens, M tokens to guess, E width of the model, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expectations.contracts.errors import DataError, SettingError
from training.batches import distinct
from training.encoder import TextEncoder
from training.examples import Examples
from training.recipe import Recipe
from training.rows import rows_of
from training.split import TRAIN
from training.stage import Stage
from training.texts import TextTable

MASKED, CAUSAL, CONTRASTIVE = "masked", "causal", "contrastive"
HIDDEN = 0.15  # share of the tokens to guess; of them
AS_MASK, AS_OTHER = 0.8, 0.1  # … are shown as the mask, as any token; the rest as they are
TEMPERATURE = 0.05  # of the cosines among which the same text is found


def domain_stage(
    name: str, recipe: Recipe, encoder: TextEncoder, table: TextTable, text_ids: np.ndarray
) -> Stage | None:
    """The stage in which the language model learns from texts; None where the recipe leaves it out.

    Args:
        name: the stage's name.
        recipe: objective, epochs, learning rate, texts in a step.
        encoder: the language model; changed as the stage goes on.
        table: the tokens of all texts.
        text_ids: the texts to learn from, see `known_text_ids`.

    Raises:
        SettingError: the objective does not fit the language model, or nothing of it learns.
        DataError: no text holds a word.
    """
    if recipe.domain_epochs == 0:
        return None
    if not encoder.learns:
        raise SettingError(
            f"domain_epochs is {recipe.domain_epochs}, but trainable_layers is {recipe.trainable_layers}: nothing "
            "of the language model learns; set trainable_layers to -1 or above 0, or domain_epochs to 0"
        )
    worded = text_ids[table.lengths[text_ids] > _num_markers(encoder)]
    if not len(worded):
        raise DataError(f"none of the {len(text_ids)} texts known before the validation part holds a word")
    torch.manual_seed(recipe.seed)
    lesson = _lesson(recipe.domain_objective, encoder).to(table.device)
    learning = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    return Stage(
        name=name,
        modules={"encoder": encoder, "lesson": lesson},
        groups=[
            {
                "params": [*learning, *lesson.parameters()],
                "lr": recipe.domain_learning_rate,
                "weight_decay": recipe.weight_decay,
            }
        ],
        planned=recipe.domain_epochs,
        epochs=recipe.domain_epochs,
        batches=lambda rng: length_batches(worded, table.lengths, recipe.domain_texts_per_step, rng),
        loss=lambda chosen, rng: lesson.loss(encoder, *table.padded(chosen), rng),
        finish=lambda: None,
        validate=None,
    )


def known_text_ids(data: Examples) -> np.ndarray:
    """Numbers of the texts known before the validation part, ascending.

    They are the training part's candidates, queries and histories, and what the futures that were over by then
    tell of.
    """
    train, columns = rows_of(data.part, TRAIN), data.columns
    histories, later = [distinct(columns, "history_id", train)], np.zeros(0, dtype=np.int64)
    if data.futures is not None:
        over = data.futures.over_by(columns["event_timestamp"][data.part != TRAIN].min())
        histories.append(data.futures.history_id[over])
        later, _ = data.futures.texts_of(over)
    before = data.histories.texts(np.unique(np.concatenate(histories)))
    found = [distinct(columns, name, train) for name in ("text_id", "query_id")]
    text_ids = np.unique(np.concatenate([*found, before, later])).astype(np.int64)
    return text_ids[text_ids >= 0]


def length_batches(
    text_ids: np.ndarray, lengths: np.ndarray, size: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Batches of at most `size` texts of nearly equal length, in random order: hardly any padding is read."""
    order = text_ids[np.lexsort((rng.random(len(text_ids)), lengths[text_ids]))]
    batches = np.array_split(order, -(-len(order) // size))
    return [batches[place] for place in rng.permutation(len(batches))]


class TokenLesson(nn.Module):
    """Guessing tokens, with a head whose last matrix is the language model's own embedding.

    Args:
        encoder: the language model.
        show: token ids (B, L), mask (B, L) and a generator -> the ids that the model is shown, and for each
            place the token to guess there, or -1.
    """

    def __init__(self, encoder: TextEncoder, show: "Show") -> None:
        super().__init__()
        rows, width = encoder.model.get_input_embeddings().weight.shape
        self.show = show
        self.dense = nn.Linear(encoder.width, width)
        self.norm = nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.zeros(rows))

    def loss(self, encoder: TextEncoder, ids_BL: Tensor, mask_BL: Tensor, rng: np.random.Generator) -> Tensor:
        """Mean cross-entropy of the tokens to guess."""
        shown_BL, wanted_BL = self.show(ids_BL, mask_BL, rng)
        hidden_BLE = encoder.hidden(shown_BL, mask_BL)
        guessed_BL = wanted_BL >= 0
        words_VE = encoder.model.get_input_embeddings().weight
        looked_ME = self.norm(nn.functional.gelu(self.dense(hidden_BLE[guessed_BL])))
        return nn.functional.cross_entropy(looked_ME @ words_VE.T + self.bias, wanted_BL[guessed_BL])


class SameText(nn.Module):
    """Finding a text among others, when dropout has changed how it reads; it has no weights of its own."""

    def loss(
        self, encoder: TextEncoder, ids_BL: Tensor, mask_BL: Tensor, _rng: np.random.Generator
    ) -> Tensor:
        """Mean cross-entropy of the same text among the batch's."""
        first_BE, second_BE = encoder(ids_BL, mask_BL), encoder(ids_BL, mask_BL)
        same = torch.arange(len(ids_BL), device=ids_BL.device)
        return nn.functional.cross_entropy(first_BE @ second_BE.T / TEMPERATURE, same)


Show = Callable[[Tensor, Tensor, np.random.Generator], tuple[Tensor, Tensor]]


def _lesson(objective: str, encoder: TextEncoder) -> Any:
    if objective == CONTRASTIVE:
        return SameText()
    decodes = _reads_forward(encoder.model)
    fitting = CAUSAL if decodes else MASKED
    if objective != fitting:
        kind = "reads forward only" if decodes else "reads in both directions"
        raise SettingError(
            f"domain_objective is {objective!r}, but {type(encoder.model).__name__} {kind}; "
            f"choose {fitting!r} or {CONTRASTIVE!r}"
        )
    if objective == CAUSAL:
        return TokenLesson(encoder, _next)
    tokenizer = encoder.tokenizer
    if tokenizer.mask_token_id is None:
        raise SettingError(
            f"domain_objective is {MASKED!r}, but the tokenizer of {type(encoder.model).__name__} has no mask "
            f"token; choose {CONTRASTIVE!r}"
        )
    markers = torch.tensor(sorted(tokenizer.all_special_ids))
    return TokenLesson(encoder, Hiding(markers, mask=tokenizer.mask_token_id, num_tokens=len(tokenizer)))


class Hiding:
    """Hides tokens that are no markers.

    Args:
        markers: ids of the markers.
        mask: id of the mask.
        num_tokens: of the vocabulary.
    """

    def __init__(self, markers: Tensor, *, mask: int, num_tokens: int) -> None:
        self.markers, self.mask, self.num_tokens = markers, mask, num_tokens

    def __call__(self, ids_BL: Tensor, mask_BL: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """What is shown, and what is to be guessed (-1: nothing); of each text that has words, one at least."""
        may_BL = (mask_BL > 0) & ~torch.isin(ids_BL, self.markers.to(ids_BL.device))
        chance_BL = torch.from_numpy(rng.random(ids_BL.shape)).to(ids_BL.device).masked_fill(~may_BL, 2)
        least_B1 = chance_BL.amin(1, keepdim=True)
        hidden_BL = may_BL & ((chance_BL < HIDDEN) | (chance_BL == least_B1))
        kind_BL = torch.from_numpy(rng.random(ids_BL.shape)).to(ids_BL.device)
        others = torch.from_numpy(rng.integers(0, self.num_tokens, ids_BL.shape)).to(ids_BL.device)
        shown_BL = torch.where(hidden_BL & (kind_BL < AS_MASK), self.mask, ids_BL)
        as_other = hidden_BL & (kind_BL >= AS_MASK) & (kind_BL < AS_MASK + AS_OTHER)
        shown_BL = torch.where(as_other, others, shown_BL)
        return shown_BL, torch.where(hidden_BL, ids_BL, -1)


def _next(ids_BL: Tensor, mask_BL: Tensor, _rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """All is shown, and each place is to guess what follows it."""
    wanted_BL = torch.full_like(ids_BL, -1)
    wanted_BL[:, :-1] = torch.where(mask_BL[:, 1:] > 0, ids_BL[:, 1:], -1)
    return ids_BL, wanted_BL


def _num_markers(encoder: TextEncoder) -> int:
    """Tokens of an empty text."""
    return int(encoder.tokenize([""]).lengths[0])


@torch.no_grad()
def _reads_forward(model: Any) -> bool:
    """Whether what a model says of a token depends on none that follows."""
    was_training = model.training
    model.eval()
    ids = torch.tensor([[1, 2, 3], [1, 2, 4]], device=model.device)
    first = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[:, 0]
    model.train(was_training)
    return bool(torch.allclose(first[0], first[1], atol=1e-6))
