"""`python -m training`: fit, evaluate and gate a model on a machine that has only its packages."""

import argparse
import json
import sys
from pathlib import Path

from expectations.contracts.bundle import verify_bundle
from expectations.contracts.gate_decision import write_gate_decision
from expectations.errors import RecommenderError
from expectations.storage.atomic import read_json, write_json


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status is 0, or 1 after an error's message, or after a rejection."""
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
    from training.evaluation.evaluate import evaluate

    found = evaluate(
        options.bundle,
        options.examples,
        champion=options.champion,
        seed=options.seed,
        progress=not options.quiet,
    )
    write_json(options.out, found)
    shown = {name: found[name] for name in ("model", "zero_shot", "lightgbm", "popularity", "champion")}
    print(json.dumps(shown, indent=2))
    return 0


def _gate(options: argparse.Namespace) -> int:
    from training.evaluation.gate import gate_decision, read_rules

    _, digest = verify_bundle(options.bundle)
    decision = gate_decision(read_json(options.evaluation), read_rules(options.rules), digest)
    path = write_gate_decision(options.gate_decisions, decision)
    for rule in decision.rules:
        print(f"{'passed' if rule.passed else 'FAILED'}  {rule.rule}: {rule.reason}")
    print(f"{'approved' if decision.approved else 'rejected'}: {path}")
    return 0 if decision.approved else 1


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
    commands = parser.add_subparsers(required=True, metavar="fit | search | evaluate | gate | new-encoder")

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
    evaluate.add_argument("--seed", type=int, default=0, help="of the bootstrap draws (default: 0)")
    evaluate.add_argument("--quiet", action="store_true", help="no progress bars")
    evaluate.set_defaults(run=_evaluate)

    gate = commands.add_parser("gate", help="an evaluation against rules; exit status 1 where rejected")
    gate.add_argument("--bundle", type=Path, required=True, help="the bundle's folder")
    gate.add_argument("--evaluation", type=Path, required=True, help="what evaluate wrote")
    gate.add_argument("--rules", type=Path, help="TOML file (default: the packaged rules)")
    gate.add_argument("--gate-decisions", type=Path, required=True, help="folder for the decision")
    gate.set_defaults(run=_gate)

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
