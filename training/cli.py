"""`python -m training`: fit, evaluate and gate a model, and score rows, on a machine that has only its packages."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from expectations.contracts.bundle import verify_bundle
from expectations.contracts.gate_decision import write_gate_decision
from expectations.errors import RecommenderError
from expectations.storage.atomic import read_json, write_json

REJECTED, NEEDS_PERSON = 3, 4  # exit statuses of the gate


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status is 0, 1 after an error's message, or what the gate decided."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except RecommenderError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1


def _fit(options: argparse.Namespace) -> int:
    from training.config.recipe import read_recipe
    from training.pipeline.fit import fit
    from training.runtime import distributed

    work = options.work or options.out / ".training"
    with distributed.process_group():
        result = fit(
            options.examples,
            read_recipe(options.recipe),
            out=options.out,
            work=work,
            log_dir=options.log_dir or work / "tensorboard",
            champion=options.champion,
            progress=not options.quiet,
        )
        if distributed.rank() > 0:
            return 0
    shown = ("bundle", "hash", "metrics", "seconds", "initialization")
    print(json.dumps({name: getattr(result, name) for name in shown}, indent=2, default=str))
    return 0


def _search(options: argparse.Namespace) -> int:
    from training.config.recipe import read_recipe
    from training.hpo.search import search, table

    recipe = read_recipe(options.recipe)
    summary = search(
        options.examples,
        recipe.updated(early_stopping={"metric": options.metric or recipe.early_stopping.metric}),
        space=options.space,
        out=options.out,
        trials=options.trials,
        progress=not options.quiet,
    )
    print(table(summary))
    print(f"best: {summary['best']['recipe']}")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from training.evaluation.evaluate import RIVALS, evaluate

    found = evaluate(
        options.bundle,
        options.examples,
        champion=options.champion,
        best_approved=options.best_approved,
        seed=options.seed,
        progress=not options.quiet,
    )
    write_json(options.out, found)
    print(json.dumps({name: found[name] for name in ("model", *RIVALS)}, indent=2))
    print(f"proposal: {found['proposal_reason']}")
    return 0


def _predict(options: argparse.Namespace) -> int:
    from training.inference.files import predict

    count = predict(options.bundle, options.input, options.out)
    print(f"{count} rows scored: {options.out}")
    return 0


def _gate(options: argparse.Namespace) -> int:
    from training.evaluation.gate import gate_decision, read_rules

    _, digest = verify_bundle(options.bundle)
    decision = gate_decision(read_json(options.evaluation), read_rules(options.rules), digest)
    path = write_gate_decision(options.gate_decisions, decision)
    for rule in decision.rules:
        print(f"{'passed' if rule.passed else 'FAILED'}  {rule.rule}: {rule.reason}")
    if decision.needs_person:
        print(f"left to a person: {decision.needs_person}: {path}")
        return NEEDS_PERSON
    print(f"{'approved' if decision.approved else 'rejected'}: {path}")
    return 0 if decision.approved else REJECTED


def _new_encoder(options: argparse.Namespace) -> int:
    from training.data.dataset import read_examples
    from training.language.new_encoder import write_new_encoder
    from training.pipeline.pretraining import known_text_ids

    data = read_examples(options.examples)
    place = write_new_encoder(
        options.out,
        [data.texts[number] for number in known_text_ids(data)],
        tokenizer=options.tokenizer,
        vocabulary=options.vocabulary,
        layers=options.layers,
        width=options.width,
        max_tokens=options.max_tokens,
        seed=options.seed,
    )
    print(
        f'[encoder]\nname = "{place}"  # for a recipe; language_epochs teaches it the language of the texts'
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(
        required=True, metavar="fit | search | evaluate | gate | predict | new-encoder"
    )

    fit = commands.add_parser(
        "fit", help="examples and a recipe become a bundle; goes on where it was stopped"
    )
    fit.add_argument("--recipe", type=Path, help="TOML file (default: the packaged recipe)")
    fit.add_argument("--examples", type=Path, required=True, help="examples folder")
    fit.add_argument("--out", type=Path, required=True, help="folder in which the bundle's folder is made")
    fit.add_argument("--work", type=Path, help="folder of checkpoints (default: OUT/.training)")
    fit.add_argument("--log-dir", type=Path, help="TensorBoard folder (default: WORK/tensorboard)")
    fit.add_argument("--champion", type=Path, help="bundle to start from, if it fits (default: from scratch)")
    fit.add_argument("--quiet", action="store_true", help="no progress bars")
    fit.set_defaults(run=_fit)

    search = commands.add_parser(
        "search", help="a better recipe, by many trials on the validation part; goes on where it was stopped"
    )
    search.add_argument("--examples", type=Path, required=True, help="examples folder")
    search.add_argument("--recipe", type=Path, help="TOML file to begin with (default: the packaged recipe)")
    search.add_argument("--space", type=Path, help="TOML file: what is tried (default: the packaged space)")
    search.add_argument("--metric", help="what decides (default: the recipe's metric)")
    search.add_argument("--out", type=Path, required=True, help="folder of trials, summary and best recipe")
    search.add_argument("--trials", type=int, default=30, help="in all, former runs included (default: 30)")
    search.add_argument("--quiet", action="store_true", help="no progress bar")
    search.set_defaults(run=_search)

    evaluate = commands.add_parser("evaluate", help="metrics of a bundle on the test part")
    evaluate.add_argument("--bundle", type=Path, required=True, help="the bundle's folder")
    evaluate.add_argument("--examples", type=Path, required=True, help="examples folder")
    evaluate.add_argument("--out", type=Path, required=True, help="JSON file to write")
    evaluate.add_argument("--champion", type=Path, help="folder of the bundle that serves now")
    evaluate.add_argument(
        "--best-approved",
        type=Path,
        help="folder of the best bundle approved before, if that is not the champion",
    )
    evaluate.add_argument("--seed", type=int, default=0, help="of the bootstrap draws (default: 0)")
    evaluate.add_argument("--quiet", action="store_true", help="no progress bars")
    evaluate.set_defaults(run=_evaluate)

    gate = commands.add_parser(
        "gate",
        help=f"an evaluation against rules; exit status {REJECTED} where rejected, {NEEDS_PERSON} where a person "
        "must decide",
    )
    gate.add_argument("--bundle", type=Path, required=True, help="the bundle's folder")
    gate.add_argument("--evaluation", type=Path, required=True, help="what evaluate wrote")
    gate.add_argument("--rules", type=Path, help="TOML file (default: the packaged rules)")
    gate.add_argument("--gate-decisions", type=Path, required=True, help="folder for the decision")
    gate.set_defaults(run=_gate)

    _add_predict(commands)

    new = commands.add_parser(
        "new-encoder",
        help="a small language model with random weights, for languages without a pretrained one",
    )
    new.add_argument("--examples", type=Path, required=True, help="examples folder whose texts it is to read")
    new.add_argument("--out", type=Path, required=True, help="folder to write; a recipe names it as encoder")
    new.add_argument("--tokenizer", default="bpe", help="bpe (frequent strings, default) or wordpiece")
    new.add_argument("--vocabulary", type=int, default=16000, help="most tokens (default: 16000)")
    new.add_argument("--layers", type=int, default=2, help="number of layers (default: 2)")
    new.add_argument("--width", type=int, default=192, help="of a token's vector (default: 192)")
    new.add_argument("--max-tokens", type=int, default=128, help="of the longest text (default: 128)")
    new.add_argument("--seed", type=int, default=7, help="of the weights (default: 7)")
    new.set_defaults(run=_new_encoder)
    return parser


def _add_predict(commands: Any) -> None:
    about = (
        "Scores of rows: probability, text_logit (f: what the texts say) and tabular_logit (g: what past outcomes "
        "say), whose sum is the probability's logit. Rows are either an examples folder, which the pipeline makes, "
        "all of it; or a Parquet or UTF-8 CSV file with every feature column of the bundle (numeric and categorical "
        "in its manifest.json; empty: unknown), `text` (what the candidate says) and, if there is one, `query`. A "
        "file has no histories of users: f sees the texts alone. Other columns are copied to the output."
    )
    predict = commands.add_parser("predict", help="scores of your own rows", description=about)
    predict.add_argument("--bundle", type=Path, required=True, help="the bundle's folder")
    predict.add_argument("--input", type=Path, required=True, help="examples folder, .parquet or .csv file")
    predict.add_argument("--out", type=Path, required=True, help=".parquet or .csv file to write")
    predict.set_defaults(run=_predict)
