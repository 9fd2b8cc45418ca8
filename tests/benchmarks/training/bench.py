"""Fits of ours and textbook loops, measured on the same rows, and what their arithmetic alone must cost."""

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expectations.storage.hashes import file_hash, fingerprint
from tests.benchmarks.harness import Facts, Store, linked_examples, training_code
from tests.benchmarks.training import textbook
from tests.benchmarks.training.textbook import LENGTH, Drawn, Textbook, as_if_all
from training.config.recipe import Recipe
from training.config.settings import nested
from training.data.dataset import Examples, read_examples
from training.data.sampling import negative_sampling_rate
from training.data.split import TEST, TRAIN
from training.evaluation.metrics import auc, average_precision
from training.inference.predictor import Predictor
from training.language.encoder import TextEncoder
from training.language.text_embeddings import TextEmbeddings
from training.pipeline.fit import fit
from training.pipeline.phases import FINETUNING

MEASURED_BY = (Path(__file__), Path(textbook.__file__))
ROWS, SECONDS = 2048, 2.0  # of the matrix products that tell what the machine can do
OUTSIDE = ("bundle",)  # phases of a fit that are not training


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much a run does.

    Attributes:
        textbook_negatives: of the training part that the textbook may see, beside all positives.
        test_negatives: that AUC and AP are measured on, beside all positives.
        most_seconds: longest wall time of a textbook loop.
        patient_negatives, patient_seconds, patient_epochs: the same of the textbook that is given time.
    """

    textbook_negatives: int = 4000
    test_negatives: int = 3000
    most_seconds: float = 120.0
    patient_negatives: int = 17_500
    patient_seconds: float = 2400.0
    patient_epochs: int = 3


QUICK = Effort(
    textbook_negatives=64, test_negatives=64, most_seconds=8.0, patient_negatives=64, patient_seconds=8.0
)


class Bench:
    """One run.

    Args:
        examples: the examples folder.
        recipe: ours.
        effort: how much to do.
        work: a folder for this alone.
        tell: says one line to who watches.
    """

    def __init__(
        self, examples: Path, recipe: Recipe, effort: Effort, work: Path, tell: Callable[[str], None]
    ) -> None:
        self.examples, self.effort, self.work, self.tell = examples, effort, work, tell
        self.recipe = recipe.updated(early_stopping={"refit": False}, finetuning={"epochs": 1})
        self.data: Examples = read_examples(examples)
        self.train = np.flatnonzero(self.data.part == TRAIN)
        self.measured = Drawn.of(
            self.data.labels, np.flatnonzero(self.data.part == TEST), negatives=effort.test_negatives, seed=1
        )

    def run(self) -> Facts:
        """Everything; JSON-able."""
        effort, layers = self.effort, self.recipe.encoder.trainable_layers
        every = {"finetuning.negatives_per_positive": 1e9}

        def ours(name: str, changes: Facts, rows: np.ndarray | None = None) -> Facts:
            return self._stored(f"ours-{name}", lambda: self._ours(name, changes, rows=rows))

        def textbook(name: str, *arguments: Any, **settings: Any) -> Facts:
            return self._stored(f"textbook-{name}", lambda: self._textbook(name, *arguments, **settings))

        fits = {"every row": ours("every row", every)}
        seconds = min(fits["every row"]["whole_seconds"], effort.most_seconds)
        top = textbook("the recipe's layers", layers, seconds, negatives=effort.textbook_negatives)
        whole = textbook("all layers", -1, seconds, negatives=effort.textbook_negatives)
        seen = np.array(top.pop("seen"))
        whole.pop("seen")
        fits["recipe"] = ours("recipe", {})
        fits["all layers"] = ours("all layers", {**every, "encoder.trainable_layers": -1})
        fits["same rows"] = ours("same rows", every, seen)
        more = {"negatives": effort.patient_negatives, "epochs": effort.patient_epochs}
        patient = textbook("with time", layers, effort.patient_seconds, **more)
        patient["seen"] = len(set(patient["seen"]))
        rate = top["rows_per_second"]
        return {
            "ratio": fits["every row"]["rows_per_second"] / rate,
            "auc_ours": fits["every row"]["auc"],
            "auc_textbook": max(top["auc"], whole["auc"]),
            "auc_textbook_patient": patient["auc"],
            "ratio_whole_fit": fits["every row"]["whole_rows_per_second"] / rate,
            "ratio_recipe": fits["recipe"]["rows_per_second"] / rate,
            "ratio_all_layers": fits["all layers"]["rows_per_second"] / whole["rows_per_second"],
            "auc_ours_same_rows": fits["same rows"]["auc"],
            "trainable_layers": layers,
            "ours": fits,
            "textbook": {"the recipe's layers": top, "all layers": whole, "with time": patient},
            **{
                part: {"rows": len(rows), "positive": int(self.data.labels[rows].sum())}
                for part, rows in (("test", self.measured.rows), ("train", self.train))
            },
            "distinct_texts": len(self.data.texts),
            "floor": floor(self.data, self.recipe, length=LENGTH),
        }

    def _stored(self, name: str, make: Callable[[], Facts]) -> Facts:
        """What `make` made, now or in an earlier run of the same code and recipe on the same examples."""
        code = training_code(), *(file_hash(path) for path in MEASURED_BY)
        key = fingerprint(self.data.schema.fingerprint, self.recipe.as_dict(), asdict(self.effort), *code)
        return Store(self.work.parent, self.tell).record(name, key, make)

    def _ours(self, name: str, changes: Facts, *, rows: np.ndarray | None = None) -> Facts:
        """One fit of ours: rows a second, wall time by phase, AUC and AP on the drawn test rows."""
        folder = self.examples
        if rows is not None:  # the training part is these rows alone; the other parts are whole
            chosen = self.data.part != TRAIN
            chosen[rows] = True
            folder = linked_examples(folder, self.work / "examples", chosen=chosen)
        recipe = self.recipe.updated(**nested(changes))
        places = {"out": self.work / "out", "work": self.work / "fit", "log_dir": self.work / "log"}
        result = fit(folder, recipe, **places, progress=False)
        predictor = Predictor.load(result.bundle)
        mask = np.zeros(len(self.data.rows), dtype=bool)
        mask[self.measured.rows] = True
        learned = self.train if rows is None else rows
        positive = int(self.data.labels[learned].sum())
        rate = negative_sampling_rate(self.data.labels, learned, recipe.finetuning.negatives_per_positive)
        num_rows = positive + round((len(learned) - positive) * rate)
        whole = sum(seconds for phase, seconds in result.seconds.items() if phase not in OUTSIDE)
        found = {
            "rows": num_rows,
            "finetuning_seconds": result.seconds[FINETUNING],
            "rows_per_second": num_rows / result.seconds[FINETUNING],
            "whole_seconds": whole,
            "whole_rows_per_second": num_rows / whole,
            "phase_seconds": result.seconds,
            **self._metrics(predictor.score_examples(self.data, mask).probability),
        }
        shutil.rmtree(self.work)
        self.tell(f"ours, {name}: {found['rows_per_second']:.0f} rows a second, AUC {found['auc']:.4f}")
        return found

    def _textbook(self, name: str, layers: int, seconds: float, *, negatives: int, epochs: int = 1) -> Facts:
        """One textbook loop; `seen` are the rows that it learned from, one that came twice stands twice."""
        drawn = Drawn.of(self.data.labels, self.train, negatives=negatives, seed=0)
        model = Textbook(self.recipe.encoder.name, seed=self.recipe.seed, trainable_layers=layers)
        seen, spent = model.fit(
            self.data, drawn.rows, sampling_rate=drawn.sampling_rate, seconds=seconds, epochs=epochs
        )
        found = {
            "rows": len(seen),
            "seconds": spent,
            "rows_per_second": len(seen) / spent,
            "seen": seen.tolist(),
            **self._metrics(model.probabilities(self.data, self.measured.rows)),
        }
        self.tell(f"textbook, {name}: {found['rows_per_second']:.1f} rows a second, AUC {found['auc']:.4f}")
        return found

    def _metrics(self, probability: np.ndarray) -> dict[str, float | None]:
        """AUC and AP as if all test rows were there."""
        label = self.data.labels[self.measured.rows]
        every = as_if_all(self.data.labels, self.measured)
        return {
            "auc": auc(label, probability),
            "average_precision": average_precision(label[every], probability[every]),
        }


def floor(data: Examples, recipe: Recipe, *, length: int) -> Facts:
    """What the language model's arithmetic alone must cost, in 10⁹ operations; the textbook pads its rows to `length`.

    Returns:
        tokens: of all distinct texts; padded: as many as are read, with the padding of length-sorted batches.
        reading: to read every text once with the whole model; refreshing: with the layers that learn.
        learning: forward and backward through those layers for each candidate text of the training part once.
        textbook_row: forward and backward for one row.
        machine: operations a second that one large float32 matrix product reaches here.
    """
    encoder = TextEncoder.load(
        recipe.encoder.name,
        max_tokens=recipe.encoder.max_tokens,
        trainable_layers=recipe.encoder.trainable_layers,
    )
    table = TextEmbeddings(encoder, data.texts, batch=recipe.encoder.batch_size)
    layers = encoder.num_layers
    learning = layers if recipe.encoder.trainable_layers < 0 else recipe.encoder.trainable_layers
    embeddings = sum(p.numel() for name, p in encoder.model.named_parameters() if "embeddings" in name)
    each = (sum(p.numel() for p in encoder.model.parameters()) - embeddings) / max(layers, 1)
    lengths = np.sort(table.lengths)
    size = recipe.encoder.batch_size
    batches = [lengths[start : start + size] for start in range(0, len(lengths), size)]
    candidates = np.unique(data.rows["text_id"].to_numpy()[data.part == TRAIN])

    def passes(tokens: float, num_layers: int, width: int, times: int) -> float:
        # A weight takes 2 operations a token; attention 4 · length · width a token and layer.
        attention = 4.0 * width * encoder.width
        return times * tokens * num_layers * (2 * each + attention) / 1e9

    mean = float(lengths.mean())
    return {
        "tokens": int(lengths.sum()),
        "padded": int(sum(len(batch) * batch.max() for batch in batches)),
        "reading": passes(lengths.sum(), layers, round(mean), 1),
        "refreshing": passes(lengths.sum(), learning, round(mean), 1),
        "learning": passes(table.lengths[candidates].sum(), learning, round(mean), 3),
        "textbook_row": passes(length, layers, length, 1) + passes(length, learning, length, 2),
        "machine": _machine(encoder.width),
    }


def _machine(width: int) -> float:
    """10⁹ operations a second of a matrix product of the model's own shape."""
    left, right = torch.randn(ROWS, width), torch.randn(width, 4 * width)
    left @ right
    start, times = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        left @ right
        times += 1
    return 2 * ROWS * width * 4 * width * times / (time.perf_counter() - start) / 1e9
