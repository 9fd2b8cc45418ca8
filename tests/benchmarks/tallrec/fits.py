"""One fit on some of the readers of TALLRec's book data, and what it says of others."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from torch.utils.tensorboard import SummaryWriter

from expectations.contracts.examples import INTERACTION_HISTORIES, ROWS, TEXTS, ExampleSchema
from training.config.recipe import Recipe
from training.data.dataset import Examples, read_examples
from training.data.split import TEST, TRAIN, VALIDATION
from training.hpo.trial import EpochReports
from training.inference.batch_scoring import score_rows
from training.pipeline.context import EncodedCorpus, FitContext
from training.pipeline.phases import Phases
from training.pipeline.trainer import run_phase
from training.runtime.checkpoint import TrainingState
from training.runtime.device import first_device

TIMESTAMPS = {TRAIN: datetime(2004, 1, 1), VALIDATION: datetime(2004, 2, 1), TEST: datetime(2004, 6, 1)}
NUM_FEEDBACK, SENTIMENT = "user_num_feedback", "user_sentiment"
STOPPING_FRACTION = 0.2  # of the readers who are known: they decide when to stop


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a line of the table may see.

    Attributes:
        name: of the line.
        text_model: whether the books' texts are read.
        sentiment: whether it is known which books of a history were liked.
        rate: whether the rate of liked books is a feature, beside the number of books.
        asked_again: whether the books of a history are asked about again.
    """

    name: str
    text_model: bool = True
    sentiment: bool = True
    rate: bool = True
    asked_again: bool = True


class Readers:
    """The readers of an examples folder that `shop.build` made: chosen ones become a folder of their own.

    Args:
        folder: the examples.
        recipe: of all fits.
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe = folder, recipe
        self.rows = pq.read_table(folder / ROWS)
        names = [name.split() for name in self.rows.column("exposure_id").to_pylist()]
        self.split = np.array([name[0] for name in names])
        self.number = np.array([int(name[1]) for name in names])
        self.again = np.array([len(name) > 2 for name in names])
        self._corpus: EncodedCorpus | None = None

    @property
    def num_known(self) -> int:
        """How many readers the valid split has."""
        return int(self.number[self.split == "valid"].max()) + 1

    def test_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Rate of liked books (-1 to 1, as if one more were neutral) and label of each reader of the test split."""
        rows = self.rows.filter(pa.array(self.split == "test"))
        return rows.column(SENTIMENT).to_numpy(), rows.column("label").to_numpy()

    def fit(self, setting: Setting, known: np.ndarray, out: Path, *, seed: int) -> np.ndarray:
        """Fit on readers of the valid split; returns the logits of the test split's, in the order of `test_rows`.

        Args:
            setting: what the fit may see.
            known: numbers of the readers to learn from, in any order: the first of them decide when to stop.
            out: a folder for the examples of this fit, removed afterwards.
            seed: of the fit.
        """
        examples = self.examples(setting, known, out)
        recipe = self.recipe.updated(
            seed=seed, finetuning={"epochs": self.recipe.finetuning.epochs if setting.text_model else 0}
        )
        if self._corpus is None:
            self._corpus = EncodedCorpus(examples.texts, recipe, None, first_device())
        run = FitContext(examples, recipe, corpus=self._corpus)
        state, watch = TrainingState(phase=""), EpochReports(recipe.early_stopping.metric, lambda *_: None)
        with SummaryWriter(str(out)) as log:
            Phases(
                run,
                state,
                lambda phase: run_phase(phase, recipe, state, watch, log=log, bar=False),
                {},
                {},
            ).run_all()
        chosen = np.flatnonzero(np.asarray(examples.part) == TEST)
        scores = score_rows(run.model, run.collator, run.table.vectors, chosen)
        shutil.rmtree(out)
        return scores.text_logit + scores.tabular_logit

    def examples(self, setting: Setting, known: np.ndarray, out: Path) -> Examples:
        """The examples folder of a fit: a reader's rows are all in one part."""
        num_stopping = max(2, round(STOPPING_FRACTION * len(known)))
        part = np.full(len(self.split), "", dtype=object)
        of = {VALIDATION: known[:num_stopping], TRAIN: known[num_stopping:]}
        for name, numbers in of.items():
            part[(self.split == "valid") & np.isin(self.number, numbers)] = name
        if not setting.asked_again:
            part[self.again] = ""
        part[self.split == "test"] = TEST
        out.mkdir(parents=True)
        in_time = np.concatenate([np.flatnonzero(part == name) for name in TIMESTAMPS])
        rows = self.rows.take(pa.array(in_time))
        timestamps = pa.array([TIMESTAMPS[name] for name in part[in_time]], pa.timestamp("us"))
        rows = rows.set_column(rows.column_names.index("event_timestamp"), "event_timestamp", timestamps)
        pq.write_table(rows, out / ROWS)
        histories = pq.read_table(self.folder / INTERACTION_HISTORIES)
        if not setting.sentiment:
            place = histories.column_names.index("sentiments")
            histories = histories.set_column(place, "sentiments", _silent(histories.column("sentiments")))
        pq.write_table(histories, out / INTERACTION_HISTORIES)
        shutil.copy(self.folder / TEXTS, out / TEXTS)
        replace(
            ExampleSchema.read(self.folder),
            # What others said of a book is left out: readers who are asked again say what is asked of others.
            numeric=(NUM_FEEDBACK, SENTIMENT) if setting.rate else (NUM_FEEDBACK,),
            categorical=("context_scenario",),
            popularity=NUM_FEEDBACK,
            activity=NUM_FEEDBACK,
            slices=(),
        ).write(out)
        return read_examples(out)


def _silent(lists: pa.ChunkedArray) -> pa.Array:
    """The same lists with every number 0."""
    together = lists.combine_chunks()
    return pa.ListArray.from_arrays(
        together.offsets, pc.multiply(together.values, pa.scalar(0.0, pa.float32()))
    )


def draws(num_readers: int, size: int, count: int) -> Iterable[np.ndarray]:
    """Numbers of `size` readers, drawn anew each time."""
    for number in range(count):
        yield np.random.default_rng([size, number]).permutation(num_readers)[:size]
