"""``pipo data``: from published sets to questions, roll-outs and training files; all but tokenising is done here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipo.cli import options as o
from pipo.cli import pull as hub
from pipo.cli.rollouts import Thinking, rollouts

app = typer.Typer(help="Data to train on: import, roll out, build, look at.", no_args_is_help=True)
app.command("rollouts")(rollouts)

File = Annotated[Path, typer.Argument(help="A training file: JSONL with prompt and response, or with messages.")]
OutFile = Annotated[Path, typer.Option("--out", help="The file to write; OUT.report.json says what was left out.")]
ModelOpt = Annotated[str, typer.Option("--model", help="Whose tokenizer: a lab name or a model folder.")]
MaxLength = Annotated[
    int | None, typer.Option("--max-length", min=2, help="Most tokens of prompt and response. [default: no limit]")
]
Runs = Annotated[
    list[str], typer.Argument(metavar="JOB|FOLDER|FILE...", help="Roll-outs: job numbers, folders, records.jsonl.")
]


@app.command("pull")
def pull(
    name: hub.Id, revision: hub.Revision = None, include: hub.Include = None, json: o.Json = False
) -> None:  # fmt: skip
    """Fetch a data set from the hub; a broken-off download goes on."""
    hub.pull_data(name, revision, include, json)


@app.command("import")
def import_(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="dapo-math, codeforces, gsm8k, math or messages.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="JSONL or parquet files, or folders of them.")],
    out: OutFile,
    split: Annotated[
        str | None, typer.Option("--split", metavar="90/10", help="Two files, OUT-sft and OUT-opd, of these shares.")
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Prompts, for models without a chat template.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="The first so many questions.")] = None,
    seed: o.Seed = 0,
    json: o.Json = False,
) -> None:
    """Turn a published set into questions."""
    from pipo.cli.output import print_json
    from pipo.data.imports import import_questions

    given = [f.expanduser().absolute() for f in files]
    report = import_questions(kind, given, _absolute(out), plain=plain, split=split, seed=seed, limit=limit)
    if json:
        print_json(report)
        return
    print(f"{report['questions']:,} questions from {report['rows']:,} rows")
    _print_counts({reason: n["count"] for reason, n in report["left_out"].items()}, "left out")
    for path, count in report["files"].items():
        print(f"{path}: {count:,}")


@app.command("build-sft")
def build_sft(
    runs: Runs,
    out: OutFile,
    shortest: Annotated[bool, typer.Option("--shortest", help="One right answer a question, the shortest.")] = False,
    max_length: MaxLength = None,
    max_repeats: Annotated[
        int | None,
        typer.Option(
            "--max-repeats", min=1, help="Drop answers that repeat NGRAM tokens more often, or end in a loop."
        ),
    ] = None,
    ngram: Annotated[int, typer.Option("--ngram", min=2, help="Tokens of a repetition.")] = 20,
    json: o.Json = False,
) -> None:
    """Write the right answers of roll-outs as training rows."""
    from pipo.data import build

    report = build.build_sft(
        open_runs(runs), _absolute(out), shortest=shortest, max_length=max_length, max_repeats=max_repeats, ngram=ngram
    )
    show_built(report, json)


@app.command("build-opd")
def build_opd(
    runs: Runs,
    out: OutFile,
    rho: Annotated[float, typer.Option("--rho", help="Least share of right samples, in [0, 1].")] = 0.5,
    json: o.Json = False,
) -> None:
    """Write the questions that the teacher solves often enough as prompts for on-policy distillation."""
    from pipo.data import build

    show_built(build.build_opd(open_runs(runs), _absolute(out), rho=rho), json)


@app.command("cache")
def cache(
    file: File,
    model: ModelOpt,
    thinking: Thinking = None,
    family: o.Family = None,
    json: o.Json = False,
    detach: o.Detach = False,
) -> None:
    """Tokenise a training file once and keep it; a change of file, tokenizer or thinking makes another."""
    from pipo.cli.follow import run_job

    run_job("data-cache", _spec(file, model, family, thinking=thinking), as_json=json, detach=detach, show=show_cache)


@app.command("show")
def show(
    file: File,
    model: ModelOpt,
    rows: Annotated[int, typer.Option("--rows", min=0, help="How many of the first rows to show.")] = 3,
    max_length: MaxLength = None,
    thinking: Thinking = None,
    family: o.Family = None,
    json: o.Json = False,
    detach: o.Detach = False,
) -> None:
    """Counts, lengths, and the first rows with the border between what is shown and what is trained on."""
    from pipo.cli.follow import run_job

    spec = _spec(file, model, family, thinking=thinking, rows=rows, max_length=max_length)
    run_job("data-show", spec, as_json=json, detach=detach, show=show_file)


def _spec(file: Path, model: str, family: Path | None, **more: Any) -> dict[str, Any]:
    from pipo.errors import BadInput

    path = _absolute(file)
    if not path.is_file():
        raise BadInput(f"{file} is not a file; name a JSONL file of prompts and responses, or of messages")
    lab = o.check_family(family)
    return o.without_none(file=str(path), model=o.check_model(model, lab), family=lab, **more)


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def open_runs(names: list[str]) -> list[Any]:
    """Run folders by job number or path. Raises BadInput for jobs of another kind and for what is no roll-out."""
    from pipo.cli.follow import open_client
    from pipo.cli.output import note
    from pipo.data.runs import RolloutRun
    from pipo.errors import BadInput

    found = []
    for name in names:
        path = Path(name).expanduser()
        if name.isdecimal() and not path.exists():
            with open_client() as client:
                info = client.job(int(name))
            if info.kind != "rollouts":
                raise BadInput(f"job {name} is of kind {info.kind}; building takes rollouts, see `pipo jobs list`")
            path = Path(info.folder)
        run = RolloutRun(path.absolute())
        if not run.source()["finished"]:
            note(f"{run.folder} is not finished; building from the questions that are")
        found.append(run)
    return found


def show_built(report: dict[str, Any], as_json: bool) -> None:
    """What was kept and dropped."""
    from pipo.cli.output import cell, print_json

    if as_json:
        print_json(report)
        return
    if report["kind"] == "sft":
        print(
            f"{report['kept']:,} trajectories of {report['questions']:,} questions, of {report['considered']:,} samples"
        )
        print("tokens: " + ", ".join(f"{key} {cell(value)}" for key, value in report["tokens"].items()))
    else:
        print(f"{report['kept']:,} of {report['considered']:,} questions")
    _print_counts({reason: d["count"] for reason, d in report["dropped"].items()}, "dropped")
    print(f"{report['out']}, and what was dropped in {report['out']}.report.json")


def _print_counts(counts: dict[str, int], word: str) -> None:
    for reason, count in counts.items():
        print(f"{word}, {reason}: {count:,}")


def show_cache(result: dict[str, Any]) -> None:
    """Where the tokens are."""
    print(f"{result['rows']:,} rows, {result['tokens']:,} tokens, {result['bytes'] / 1e6:.1f} MB")
    _print_noted(result)
    print(result["cache"])


def show_file(result: dict[str, Any]) -> None:
    """Headline, a table of lengths, rows with their border."""
    from pipo.cli.output import cell, print_table

    print(result["headline"])
    _print_noted(result)
    points = ("mean", "sd", "min", "p5", "p25", "median", "p75", "p95", "max")
    print()
    print_table(["tokens", *points], [[part, *(cell(of[p]) for p in points)] for part, of in result["lengths"].items()])
    for row in result["first"]:
        print(f"\n{row['source'] or 'prompt'}: {row['prompt_tokens']} tokens │ {row['response_tokens']} trained on; "
              f"last ids {row['last']}\n{row['text']}")  # fmt: skip


def _print_noted(result: dict[str, Any]) -> None:
    """Lines that were left out or noticed."""
    words = {"over_long": "left out, over-long", "torn": "left out, torn", "no_eos": "without EOS at the end"}
    for key, word in words.items():
        noted = result[key]
        if noted["count"]:
            more = ", ..." if noted["count"] > len(noted["lines"]) else ""
            print(f"{word}: {noted['count']:,} (lines {', '.join(map(str, noted['lines']))}{more})")
