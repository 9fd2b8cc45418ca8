"""`make bench-training`: rows a second of ours beside the textbook loop, on the same machine, model and rows.

Four fits of ours by the product's own `fit`, without the refit, and three textbook loops:

- `every row`: the recipe with every row of the training part in the words stage. The textbook of the same
  trainable layers gets the wall time of that whole fit, and rows drawn from the same training part.
- `recipe`: as it is packaged; of the rows without an answer it draws a share.
- `all layers`: every row, the whole language model learning, beside a textbook that does the same.
- `same rows`: ours on nothing but the rows that the textbook came to see in its time.
- a textbook with time: many times that of ours, and more rows, each of them more than once.

What each of them came to is kept in the work folder: a run that was killed goes on with the next one.

A row counts when its loss was computed and learned from. Ours' rows a second are those of the words stage: its
steps, the reading anew of every distinct text at the end, and the figures of the validation part. `whole` divides the
same rows by the wall time of the whole fit: reading the files, reading the texts, purchases, g, words.
"""

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from expectations.contracts.examples import INTERACTION_HISTORIES, NEXT_INTERACTIONS, ROWS, SCHEMA, TEXTS
from expectations.errors import RecommenderError
from expectations.storage.atomic import read_json, write_json
from expectations.storage.datasets import current_folder
from expectations.storage.hashes import file_hash, fingerprint
from tests.benchmarks import training_textbook
from tests.benchmarks.after_demo import SOURCE, command_line, tell, training_code, write_page
from tests.benchmarks.training_floor import floor
from tests.benchmarks.training_page import page
from tests.benchmarks.training_textbook import LENGTH, Drawn, Lesson, Textbook, as_if_all
from training.config.recipe import Recipe, read_recipe
from training.config.settings import nested
from training.data.dataset import Examples, read_examples
from training.data.split import TEST, TRAIN
from training.evaluation.metrics import auc, average_precision
from training.inference.predictor import Predictor
from training.pipeline.fit import fit

MEASURED_BY = (__file__, training_textbook.__file__)
OUTSIDE = ("bundle",)  # laps of a fit that are not training


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much a run does.

    Attributes:
        textbook_others: unanswered rows of the training part that the textbook may see, beside all answered.
        test_others: unanswered test rows that AUC and AP are measured on, beside all answered.
        most_seconds: longest wall time of a textbook loop.
        patient_others, patient_seconds, patient_epochs: the same of the textbook that is given time.
    """

    textbook_others: int = 4000
    test_others: int = 3000
    most_seconds: float = 120.0
    patient_others: int = 17_500
    patient_seconds: float = 2400.0
    patient_epochs: int = 3


QUICK = Effort(textbook_others=64, test_others=64, most_seconds=8.0, patient_others=64, patient_seconds=8.0)
QUICK_RECIPE = {
    "encoder.max_tokens": 4,
    "tabular_model.epochs": 1,
    "tabular_model.num_trees": 10,
    "pretraining.next_interaction_epochs": 1,
    "pretraining.next_interaction_steps": 4,
    "finetuning.texts_per_step": 128,
    "finetuning.history_texts_per_step": 2,
}


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
            self.data.labels, np.flatnonzero(self.data.part == TEST), others=effort.test_others, seed=1
        )

    def run(self) -> dict[str, Any]:
        """Everything; JSON-able."""
        layers, every = self.recipe.encoder.trainable_layers, {"finetuning.negative_sampling_rate": 1.0}
        ours = {"every row": self._kept("ours-every", lambda: self._ours("every row", every))}
        seconds = min(ours["every row"]["whole_seconds"], self.effort.most_seconds)
        top = self._kept("textbook-top", lambda: self._textbook("the recipe's layers", layers, seconds))
        whole = self._kept("textbook-all", lambda: self._textbook("all layers", -1, seconds))
        seen = np.array(top.pop("seen"))
        whole.pop("seen")
        ours["recipe"] = self._kept("ours-recipe", lambda: self._ours("recipe", {}))
        wide = {**every, "encoder.trainable_layers": -1}
        ours["all layers"] = self._kept("ours-all", lambda: self._ours("all layers", wide))
        ours["same rows"] = self._kept("ours-same", lambda: self._ours("same rows", every, rows=seen))
        patient = self._kept("textbook-patient", lambda: self._patient(layers))
        rate = top["rows_per_second"]
        return {
            "ratio": ours["every row"]["rows_per_second"] / rate,
            "auc_ours": ours["every row"]["auc"],
            "auc_textbook": max(top["auc"], whole["auc"]),
            "auc_textbook_patient": patient["auc"],
            "ratio_whole_fit": ours["every row"]["whole_rows_per_second"] / rate,
            "ratio_recipe": ours["recipe"]["rows_per_second"] / rate,
            "ratio_all_layers": ours["all layers"]["rows_per_second"] / whole["rows_per_second"],
            "auc_ours_same_rows": ours["same rows"]["auc"],
            "trainable_layers": layers,
            "ours": ours,
            "textbook": {"the recipe's layers": top, "all layers": whole, "with time": patient},
            "test": {
                "rows": len(self.measured.rows),
                "answered": int(self.data.labels[self.measured.rows].sum()),
            },
            "train": {"rows": len(self.train), "answered": int(self.data.labels[self.train].sum())},
            "distinct_texts": len(self.data.texts),
            "floor": asdict(floor(self.data, self.recipe, length=LENGTH)),
        }

    def _kept(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `make` made, now or in an earlier run of the same code and recipe on the same examples."""
        settings = (self.recipe.as_dict(), asdict(self.effort))
        key = fingerprint(
            self.data.schema.fingerprint,
            *settings,
            training_code(),
            *(file_hash(Path(name)) for name in MEASURED_BY),
        )
        path = self.work.parent / f"{name}-{key}.json"
        if not path.exists():
            write_json(path, make())
        return dict(read_json(path))

    def _ours(self, name: str, changes: dict[str, Any], *, rows: np.ndarray | None = None) -> dict[str, Any]:
        """One fit of ours: rows a second, wall time by step, AUC and AP on the drawn test rows."""
        folder = (
            self.examples if rows is None else only(self.examples, self.data, rows, self.work / "examples")
        )
        recipe = self.recipe.updated(**nested(changes))
        result = fit(
            folder,
            recipe,
            out=self.work / "out",
            work=self.work / "fit",
            log_dir=self.work / "log",
            progress=False,
        )
        predictor = Predictor.load(result.bundle)
        mask = np.zeros(len(self.data.rows), dtype=bool)
        mask[self.measured.rows] = True
        learned = self.train if rows is None else rows
        answered = int(self.data.labels[learned].sum())
        num_rows = answered + round((len(learned) - answered) * recipe.finetuning.negative_sampling_rate)
        whole = sum(seconds for lap, seconds in result.seconds.items() if lap not in OUTSIDE)
        found = {
            "rows": num_rows,
            "words_seconds": result.seconds["words"],
            "rows_per_second": num_rows / result.seconds["words"],
            "whole_seconds": whole,
            "whole_rows_per_second": num_rows / whole,
            "laps": result.seconds,
            **self._figures(predictor.score_examples(self.data, mask).probability),
        }
        shutil.rmtree(self.work)
        self.tell(f"ours, {name}: {found['rows_per_second']:.0f} rows a second, AUC {found['auc']:.4f}")
        return found

    def _textbook(self, name: str, layers: int, seconds: float) -> dict[str, Any]:
        """One textbook loop; `seen` are the rows that it learned from."""
        drawn = self._drawn(self.effort.textbook_others)
        return self._lesson(name, layers, drawn, seconds=seconds, epochs=1)

    def _patient(self, layers: int) -> dict[str, Any]:
        """The textbook loop with more time, more rows and more epochs."""
        effort = self.effort
        drawn = self._drawn(effort.patient_others)
        found = self._lesson(
            "with time", layers, drawn, seconds=effort.patient_seconds, epochs=effort.patient_epochs
        )
        return {**found, "seen": len(set(found["seen"]))}

    def _drawn(self, others: int) -> Drawn:
        """Rows of the training part for a textbook."""
        return Drawn.of(self.data.labels, self.train, others=others, seed=0)

    def _lesson(self, name: str, layers: int, drawn: Drawn, *, seconds: float, epochs: int) -> dict[str, Any]:
        textbook = Textbook(self.recipe.encoder.name, seed=self.recipe.seed, trainable_layers=layers)
        lesson: Lesson = textbook.fit(
            self.data, drawn.rows, share=drawn.share, seconds=seconds, epochs=epochs
        )
        found = {
            "rows": lesson.rows,
            "seconds": lesson.seconds,
            "rows_per_second": lesson.rows_per_second,
            "seen": lesson.seen.tolist(),
            **self._figures(textbook.probabilities(self.data, self.measured.rows)),
        }
        self.tell(f"textbook, {name}: {found['rows_per_second']:.1f} rows a second, AUC {found['auc']:.4f}")
        return found

    def _figures(self, probability: np.ndarray) -> dict[str, float | None]:
        """AUC and AP as if all test rows were there."""
        label = self.data.labels[self.measured.rows]
        every = as_if_all(self.data.labels, self.measured)
        return {
            "auc": auc(label, probability),
            "average_precision": average_precision(label[every], probability[every]),
        }


def only(examples: Path, data: Examples, rows: np.ndarray, folder: Path) -> Path:
    """An examples folder whose training part is these rows alone; the other parts are whole."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (INTERACTION_HISTORIES, TEXTS, SCHEMA, NEXT_INTERACTIONS):
        if (examples / name).exists():
            (folder / name).symlink_to((examples / name).absolute())
    kept = data.part != TRAIN
    kept[rows] = True
    pq.write_table(pq.read_table(examples / ROWS).filter(pa.array(kept)), folder / ROWS)
    return folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit status is 0, or 1 after an error's message."""
    options = command_line("training", __doc__).parse_args(arguments)
    work = options.work or options.home / "benchmarks" / "training"
    start = time.perf_counter()
    try:
        examples = options.examples or current_folder(options.home / "examples" / SOURCE)
        recipe, effort = read_recipe(options.recipe), Effort()
        if options.quick:
            effort, recipe = QUICK, recipe.updated(**nested(QUICK_RECIPE))
        found = Bench(examples, recipe, effort, work / "fits", tell).run()
    except RecommenderError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    out = work if options.quick else options.out
    write_page("training", found, page, out=out, quick=options.quick, since=start)
    return 0


if __name__ == "__main__":
    sys.exit(main())
