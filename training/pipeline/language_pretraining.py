"""The phase in which the language model alone learns a shop's language, from texts without any label.

What learns is what learns later too (recipe `trainable_layers`, `adapter`), and the head that guesses tokens is
thrown away after it. Only texts that were known before the validation part are read, and none that is first seen
there or in the test part; the refit begins with the language model that this phase left.
"""

import numpy as np
import torch

from expectations.errors import DataError, SettingError
from training.config.recipe import Recipe
from training.data.dataset import Examples
from training.data.sampling import distinct_values, rows_of
from training.data.split import TRAIN
from training.language.encoder import TextEncoder
from training.language.pretraining import num_special_tokens, pretraining_objective
from training.language.text_embeddings import TextEmbeddings
from training.pipeline.trainer import Phase


def language_pretraining_phase(
    name: str, recipe: Recipe, encoder: TextEncoder, table: TextEmbeddings, text_ids: np.ndarray
) -> Phase | None:
    """The phase in which the language model learns from texts; None where the recipe leaves it out.

    Args:
        name: the phase's name.
        recipe: objective, epochs, learning rate, texts in a step.
        encoder: the language model; changed as the phase goes on.
        table: the tokens of all texts.
        text_ids: the texts to learn from, see `known_text_ids`.

    Raises:
        SettingError: the objective does not fit the language model, or nothing of it learns.
        DataError: no text holds a word.
    """
    if recipe.pretraining.language_epochs == 0:
        return None
    if not encoder.is_trainable:
        raise SettingError(
            f"language_epochs is {recipe.pretraining.language_epochs}, but trainable_layers is "
            f"{recipe.encoder.trainable_layers}: nothing "
            "of the language model learns; set trainable_layers to -1 or above 0, or language_epochs to 0"
        )
    non_empty = text_ids[table.lengths[text_ids] > num_special_tokens(encoder)]
    if not len(non_empty):
        raise DataError(f"none of the {len(text_ids)} texts known before the validation part holds a word")
    torch.manual_seed(recipe.seed)
    objective = pretraining_objective(recipe.pretraining.language_objective, encoder).to(table.device)
    learning = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    return Phase(
        name=name,
        modules={"encoder": encoder, "objective": objective},
        groups=[
            {
                "params": [*learning, *objective.parameters()],
                "lr": recipe.pretraining.language_learning_rate,
                "weight_decay": recipe.optimizer.weight_decay,
            }
        ],
        planned=recipe.pretraining.language_epochs,
        epochs=recipe.pretraining.language_epochs,
        batches=lambda rng: length_batches(
            non_empty, table.lengths, recipe.pretraining.language_batch_size, rng
        ),
        loss=lambda chosen, _rng: objective.loss(encoder, *table.padded(chosen)),
        finish=lambda: None,
        validate=None,
    )


def known_text_ids(data: Examples) -> np.ndarray:
    """Numbers of the texts known before the validation part, ascending.

    They are the training part's candidates, queries and histories, and the next interactions that
    were over by then.
    """
    train, columns = rows_of(data.part, TRAIN), data.columns
    histories, later = [distinct_values(columns, "history_id", train)], np.zeros(0, dtype=np.int64)
    if data.next_interactions is not None:
        over = data.next_interactions.ended_by(columns["event_timestamp"][data.part != TRAIN].min())
        histories.append(data.next_interactions.history_id[over])
        later, _ = data.next_interactions.texts_of(over)
    before = data.interaction_histories.texts(np.unique(np.concatenate(histories)))
    found = [distinct_values(columns, name, train) for name in ("text_id", "query_id")]
    text_ids = np.unique(np.concatenate([*found, before, later])).astype(np.int64)
    return text_ids[text_ids >= 0]


def length_batches(
    text_ids: np.ndarray, lengths: np.ndarray, size: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Batches of at most `size` texts of nearly equal length, in random order: hardly any padding is read."""
    order = text_ids[np.lexsort((rng.random(len(text_ids)), lengths[text_ids]))]
    batches = np.array_split(order, -(-len(order) // size))
    return [batches[place] for place in rng.permutation(len(batches))]
