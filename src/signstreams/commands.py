"""Every command, in one table: ``signstreams NAME``, and the scripts/*.py of the same commands.

A command line is parsed before anything heavy is imported: ``--help`` and typos are answered without torch or NumPy.
"""

# PYTHON_ARGCOMPLETE_OK: tells the shell that this module completes its command line

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signstreams.errors import GO_ON, USER_ERROR_EXIT_CODE, exit_on_user_error, print_problems
from signstreams.language import grouped, plural, tr

GO_ON_TRAINING = "run again to go on from the last checkpoint"


@dataclass(frozen=True)
class Command:
    """One row of the table."""

    name: str
    config: str  # ``module:Class`` of its settings; empty when it parses its own command line
    scripts: tuple[str, ...]  # files in scripts/ that run it
    call: Callable[..., None]  # gets the parsed config; without a config class, the words and the name of the program
    help: str  # one line
    computes: bool = False  # whether it uses torch, for which the process is prepared, and logs; others print
    leading_words: str = ""  # flag that the words before the first flag belong to
    after_stop: str = GO_ON  # what Ctrl-C is answered with

    def model(self) -> Any:
        """Class of its settings."""
        module, _, name = self.config.partition(":")
        return getattr(importlib.import_module(f"signstreams.{module}"), name)


COMMANDS: dict[str, Command] = {}
"""Name to command, in the order of the chain; what helps beside it comes last."""


def main(argv: list[str] | None = None) -> None:
    """``signstreams NAME ...``; without a name, or with ``--help``, list the commands. Also ``--version``."""
    words = sys.argv[1:] if argv is None else argv
    if "_ARGCOMPLETE" in os.environ:
        words = _complete_name()
    if not words or words[0] in ("-h", "--help"):
        with exit_on_user_error():
            print(_overview(), file=sys.stdout if words else sys.stderr, flush=True)
        raise SystemExit(0 if words else USER_ERROR_EXIT_CODE)
    if words[0] == "--version":
        import signstreams

        print(f"signstreams {signstreams.__version__}")
        raise SystemExit(0)
    if words[0] not in COMMANDS:
        from signstreams.config.load import suggest

        print_problems([f"unknown command '{words[0]}'{suggest(words[0], COMMANDS)}"])
        print(tr("try: %(command)s", command="signstreams --help"), file=sys.stderr)
        raise SystemExit(USER_ERROR_EXIT_CODE)
    _run(COMMANDS[words[0]], words[1:], prog=f"signstreams {words[0]}")


def run_script(file: str, doc: str | None = None) -> None:
    """What a ``file`` in scripts/ does: the command of the table that names it, with the words of this process.

    ``doc`` is the description for ``--help``; None: docstring of the config class.
    """
    script = Path(file).name
    (command,) = (command for command in COMMANDS.values() if script in command.scripts)
    _run(command, sys.argv[1:], doc=doc)


def _run(command: Command, words: list[str], *, doc: str | None = None, prog: str | None = None) -> None:
    from signstreams.cli import leading_words_as, parse, start_logging  # here: `signstreams --help` needs no pydantic

    if not command.config:
        command.call(words, prog)
        return
    if command.leading_words:
        words = leading_words_as(command.leading_words, words)
    config = parse(command.model(), words, doc=doc, prog=prog)
    from signstreams.processes import ignore_stray_ranks, prepare_processor, raise_open_file_limit

    raise_open_file_limit()
    ignore_stray_ranks(distributed=getattr(config, "distributed", False))
    if command.computes:
        start_logging()
        prepare_processor()
    with exit_on_user_error(command.after_stop, _is_first_to_report if command.computes else lambda: True):
        command.call(config)


def _is_first_to_report() -> bool:
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return True
    from signstreams.engine.distributed import is_first_to_report  # imports torch, which a lone process can do without

    return is_first_to_report()


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items())
    return f"""\
usage: signstreams COMMAND ...

From raw sign-language video to a translation model.

commands:
{lines}

signstreams COMMAND --help shows the settings of a command."""


def _complete_name() -> list[str]:
    """For a shell that asks what may follow: answer and leave, or return the words when a command is to answer."""
    import argcomplete
    from argcomplete.lexers import split_line

    start = int(os.environ["_ARGCOMPLETE"])  # words before ours: `signstreams`, or `python -m signstreams`
    words = split_line(os.environ["COMP_LINE"], int(os.environ["COMP_POINT"]))[3][start:]
    if words:
        os.environ["_ARGCOMPLETE"] = str(start + 1)  # the name counts as the program
        return [str(word) for word in words]
    parser = argparse.ArgumentParser()
    word = parser.add_argument("command")
    word.completer = lambda **_: {name: command.help for name, command in COMMANDS.items()}  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser, always_complete_options=False)
    raise SystemExit(0)


# -- What each command does with its config


def _check_model(config: Any) -> None:
    """Say that there is no such trained model before torch is imported, which takes seconds."""
    from signstreams.integrate.model_files import trained_model_file

    trained_model_file(config)


def _command(name: str, config: str, *scripts: str, **how: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a function to the table of commands; its docstring is the line of help."""

    def add(call: Callable[..., None]) -> Callable[..., None]:
        COMMANDS[name] = Command(name, config, scripts, call, call.__doc__ or "", **how)
        return call

    return add


@_command("demo", "demo.settings:DemoConfig", "render_demo_corpus.py")
def _demo(config: Any) -> None:
    """Render the demo corpus: videos, texts, glosses, splits, ground truth."""
    from signstreams.demo.corpus import run

    print(run(config))


@_command("models", "tracker.settings:FetchModelsConfig", "fetch_models.py")
def _fetch_models(config: Any) -> None:
    """Get the models that find body, hands and face."""
    from signstreams.tracker.models import fetch_models, models_folder

    written = fetch_models(config.folder, config.wheel)
    fetched = plural("%(num)s model fetched", "%(num)s models fetched", len(written))
    print(tr("%(fetched)s; all are in %(folder)s", fetched=fetched, folder=config.folder or models_folder()))


@_command("import", "importers.settings:ImportConfig", "import_corpus.py", after_stop="nothing was written; run again")
def _import(config: Any) -> None:
    """Bring a corpus in: PHOENIX, How2Sign, ELAN files, subtitles, tables, others."""
    from signstreams.importers.run import import_corpus

    print("\n".join(import_corpus(config).lines))


@_command("extract", "extract.settings:ExtractConfig", "extract_rois_v2.py")
def _extract(config: Any) -> None:
    """Cut face and hand crops from videos and write keypoints, pose and tracks."""
    from signstreams.contract.run_checks import check_after_extraction
    from signstreams.extract.batch import extract_videos, summary

    print(summary(extract_videos(config, on_result=check_after_extraction), config.root))


@_command("split", "corpus.settings:SplitCorpusConfig", "split_corpus.py")
def _split(config: Any) -> None:
    """Divide the clips of a corpus into train, val and test."""
    from signstreams.corpus.corpus import load_corpus
    from signstreams.corpus.splits import write_splits

    corpus = load_corpus(config.root, config.videos_dir, allow_absent_videos=config.allow_absent_videos)
    split = write_splits(corpus.layout, corpus.clips, config)
    for note in split.notes:
        print(f"note: {note}", file=sys.stderr)
    counts = ", ".join(f"{name} {len(ids):,}" for name, ids in split.clip_ids.items())
    print(f"{corpus.layout.index('train').parent}: {counts} clips")


@_command("validate", "contract.settings:ContractConfig", "validate_data_contract.py")
def _validate(config: Any) -> None:
    """Check a corpus against the data contract: report, page and manifest."""
    from signstreams.contract.validate import print_outcome, validate, write_validation
    from signstreams.formats.layout import CorpusLayout

    validation = validate(config)
    layout = CorpusLayout(config.root)
    print_outcome(validation, layout, write_validation(layout, validation))
    if validation.has_errors:
        raise SystemExit(USER_ERROR_EXIT_CODE)


@_command(
    "pretrain",
    "pretrain.settings:PretrainConfig",
    "pretrain_dino_face.py",
    "pretrain_dino_hands.py",
    computes=True,
    after_stop=GO_ON_TRAINING,
)
def _pretrain(config: Any) -> None:
    """Pretrain the backbone of one stream on its crops, self-supervised."""
    from signstreams.streams import HANDS, STREAMS, pretrained_by

    # a script of one kind of stream takes no other; `signstreams pretrain` takes all
    stream = config.named_stream(pretrained_by(Path(sys.argv[0]).name) or (*STREAMS, HANDS))
    from signstreams.pretrain.run import pretrain

    pretrain(config, stream)


@_command(
    "evaluate-backbone",
    "judge.settings:EvaluateBackboneConfig",
    "evaluate_backbone.py",
    computes=True,
    after_stop="nothing was written; run again",
)
def _evaluate_backbone(config: Any) -> None:
    """Judge backbones on labelled images or clips, beside pixels, HOG, hand points."""
    from signstreams.judge.report import table
    from signstreams.judge.run import evaluate_backbones
    from signstreams.publish.verdict import backbone_verdict

    report = evaluate_backbones(config)
    print(table(report))
    if len(config.backbone) == 1 and (found := backbone_verdict(", ".join(report["streams"]), report)):
        print(f"\n{found.text}")


@_command("show", "pretrain.settings:ShowConfig", "show_backbone.py", computes=True, after_stop="run again")
def _show(config: Any) -> None:
    """Draw what a backbone sees: attention maps, patches by PCA, nearest crops."""
    from signstreams.pretrain.pictures import show_backbone

    for path in show_backbone(config).values():
        print(path)


@_command("embed", "integrate.settings:EmbedConfig", "embed_streams.py", computes=True)
def _embed(config: Any) -> None:
    """Run a frozen backbone over all crops of a stream, or gather all points."""
    from signstreams.integrate.embed import embed

    found = embed(config)
    videos = plural("%(num)s video", "%(num)s videos", len(found["videos"]))
    frames = plural("%(num)s frame", "%(num)s frames", found["num_frames"])
    print(f"{config.stream}: {videos}, {frames}, {grouped(found['bytes'])} bytes")


@_command(
    "sequence",
    "sequence.settings:SequenceConfig",
    "pretrain_sequence.py",
    computes=True,
    after_stop=GO_ON_TRAINING,
)
def _sequence(config: Any) -> None:
    """Pretrain the fusion encoder on unlabelled hours, by what is hidden over time."""
    from signstreams.sequence.run import pretrain_sequence

    found = pretrain_sequence(config)
    print(
        f"val: {found['accuracy']:.1%} of the hidden steps predicted (nearest step that is seen {found['repeat']:.1%},"
        f" commonest cluster {found['majority']:.1%})"
    )


@_command(
    "train",
    "integrate.settings:IntegrateConfig",
    "train_slt_multistream_v9.py",
    computes=True,
    after_stop=GO_ON_TRAINING,
)
def _train(config: Any) -> None:
    """Train the multistream v9 translation model; the best one is chosen on val."""
    from signstreams.integrate.run import run

    run(config)


@_command("evaluate", "integrate.settings:EvaluateSltConfig", "evaluate_slt.py", computes=True)
def _evaluate(config: Any) -> None:
    """Score a translation model: scores.json, predictions.csv, translations.html."""
    _check_model(config)
    from signstreams.integrate.scoring import score

    score(config)


@_command(
    "boundaries",
    "segment.settings:BoundaryConfig",
    "train_boundaries.py",
    computes=True,
    after_stop="nothing was written; run again",
)
def _boundaries(config: Any) -> None:
    """Train what finds sentences in continuous signing, on the corpus's clip times."""
    _check_model(config)
    from signstreams.segment.training import train_boundaries

    report = train_boundaries(config)
    for split, found in report["scores"].items():
        untrained = report["by_rests_of_the_hands"][split]["boundary_f1_0.5s"]
        print(
            f"{split}: boundary F1 {found['boundary_f1_0.5s']:.3f} within 0.5 s (by the hands' rests {untrained:.3f})"
        )


@_command(
    "translate",
    "translate.settings:TranslateConfig",
    "translate_video.py",
    computes=True,
    leading_words="--videos",
    after_stop="nothing is left behind; videos translated so far need no second run",
)
def _translate(config: Any) -> None:
    """Translate videos to subtitles: signstreams translate VIDEO --checkpoint best.pt"""
    import json

    from signstreams.formats.subtitles import clock_time
    from signstreams.translate.plan import check_outputs, list_videos

    _check_model(config)
    written = check_outputs(config, list_videos(config.videos))
    from signstreams.translate.run import translate

    logging.getLogger("signstreams").setLevel(logging.WARNING)  # what goes well needs no line beside the texts
    for translation, files in zip(translate(config), written.values(), strict=True):
        if files:
            print(tr("written: %(files)s", files=", ".join(map(str, files))), file=sys.stderr, flush=True)
        if config.as_json:
            print(json.dumps(translation.as_dict(), ensure_ascii=False), flush=True)
        elif len(translation.sentences) == 1 and not config.finds_sentences:
            print(translation.text, flush=True)
        else:
            for one in translation.sentences:
                print(f"{clock_time(one.start_s)} --> {clock_time(one.end_s)}  {one.text}", flush=True)


@_command(
    "compare", "publish.settings:CompareConfig", "compare_runs.py", leading_words="--runs", after_stop="run again"
)
def _compare(config: Any) -> None:
    """Lay runs over each other: curves in one picture, tables of values."""
    from signstreams.cli import start_logging
    from signstreams.publish.compare import compare

    start_logging()
    print("\n".join(compare(config)))


@_command("summary", "publish.settings:SummaryConfig", "summarize_run.py", after_stop="run again")
def _summary(config: Any) -> None:
    """Say what a run of the workflow made and where it is."""
    from signstreams.publish.figures import summarize

    print("\n".join(summarize(config.root, config.work_dir)))


@_command("overview", "publish.settings:OverviewConfig", "write_overview.py", after_stop="run again")
def _overview_page(config: Any) -> None:
    """Write the whole run of the workflow as one page."""
    from signstreams.files import write_text
    from signstreams.publish.overview import link_pages, render_overview

    page = render_overview(
        config.root,
        config.work_dir,
        config.logs_dir(),
        config.shown_settings(),
        config.target(),
        pretraining_only=config.pretraining_only,
    )
    write_text(config.target(), page)
    link_pages(config.root, config.work_dir)
    print(config.target())


@_command("release", "publish.settings:ReleaseConfig", "release.py", after_stop="run again")
def _release(config: Any) -> None:
    """Collect weights, cards, configs, figures, versions and checksums in one folder."""
    from signstreams.publish.release import write_release

    files = write_release(config, project=Path(__file__).resolve().parents[2])
    print(f"{config.target()}: {plural('%(num)s file', '%(num)s files', len(files))}")


LAUNCH_DOC = """\
Run a training script under torchrun: leases GPUs, starts a process for each, over one node or several.

python scripts/launch.py --gpus 2 -- scripts/pretrain_dino_hands.py --distributed --config config/pretrain/hand_r.toml
"""


@_command("launch", "", "launch.py")
def _launch(words: list[str], prog: str | None) -> None:
    """Run a training script under torchrun, on leased GPUs, over one node or several."""
    from signstreams.cli import complete

    parser = argparse.ArgumentParser(
        prog=prog, description=LAUNCH_DOC, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs of each node; 0: the CPU (default: 0)")
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="nodes of the Slurm job (default: 1)")
    parser.add_argument("--cpus", type=int, metavar="N", help="cores that the Slurm job has on each of several nodes")
    parser.add_argument("--cpu-processes", type=int, default=1, metavar="N", help="processes when there is no GPU")
    parser.add_argument(
        "--requeue", dest="requeues", action="store_true", help="a run that asks for another try: requeue its Slurm job"
    )
    parser.add_argument("command", nargs="+", metavar="SCRIPT ...", help="after --: a script and its arguments")
    complete(parser)
    args = parser.parse_args(words)
    if min(args.gpus, args.nodes - 1, args.cpu_processes - 1) < 0:
        parser.error("--gpus is at least 0, --nodes and --cpu-processes at least 1")
    if args.cpus is not None and args.cpus < 1:
        parser.error("--cpus is at least 1")
    with exit_on_user_error("nothing was started; run again"):
        from signstreams.engine.launch import launch

        code = launch(**vars(args))
    raise SystemExit(code)
