"""The command line: a table from command to configuration and function.

Later sources win: defaults, --preset, each --config file.yaml in order, then single flags such as --model.width 96.
Mistakes of the user end in one line on stderr and a code that is not 0; only programming errors show a traceback.
"""

import logging
import os
import sys
from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from reverie import __version__
from reverie.data.errors import UserError
from reverie.data.files.location import Url
from reverie.pipelines.endings import ending
from reverie.pipelines.flags import (
    did_you_mean,
    in_form,
    in_our_words,
    load_yaml,
    read_settings,
    settings_file,
)
from reverie.pipelines.help import help_text
from reverie.pipelines.launching import INTERRUPTED, end_with_parent

PROFILE = "profile "
"""Before the name of a stage, whose flags are then taken."""
USER_ERROR, USAGE_ERROR = 1, 2


@dataclass(frozen=True)
class Command:
    """Where a command lives. Modules are imported only when their command runs: torch takes seconds."""

    module: str
    config: str
    function: str
    summary: str


COMMANDS = {
    "record": Command("datasets.record", "RecordConfig", "record", "play a game and record episodes"),
    "prepare": Command(
        "datasets.prepare", "PrepareConfig", "prepare", "turn episodes or plain videos into shards"
    ),
    "tokenizer": Command(
        "stages.tokenizer", "TokenizerStage", "train_tokenizer", "train the video tokenizer"
    ),
    "encode": Command("stages.encode", "EncodeConfig", "encode", "turn video shards into latent shards"),
    "dynamics": Command("stages.dynamics", "DynamicsStage", "train_dynamics", "train the world model"),
    "clone": Command("stages.clone", "CloneStage", "train_clone", "finetune it into an agent by cloning"),
    "imagine": Command(
        "stages.imagine", "ImagineStage", "train_imagine", "improve the agent inside the world model"
    ),
    "baseline": Command(
        "stages.baseline", "BaselineStage", "baseline", "train Dreamer V1, V2 or V3 to compare with"
    ),
    "evaluate": Command(
        "scoring.evaluate", "EvaluateConfig", "evaluate", "score rollouts and agents, write a report"
    ),
    "report": Command("scoring.comparing", "ReportConfig", "report", "compare any runs on one page"),
    "fvd": Command(
        "scoring.fvd", "FvdConfig", "fvd", "Frechet video distance of generated videos to held-out ones"
    ),
    "play": Command("interactive.play", "PlayConfig", "play", "play inside the world model, in a browser"),
    "worlds": Command(
        "worlds.listing", "WorldsConfig", "worlds", "list the worlds that can be played at once"
    ),
    "push": Command(
        "worlds.exchange", "PushConfig", "push", "copy a world to a folder or to the hub (hf://)"
    ),
    "pull": Command(
        "worlds.exchange", "PullConfig", "pull", "fetch a world from a folder or from the hub (hf://)"
    ),
    "pack": Command(
        "worlds.packing", "PackConfig", "pack", "make a world of the runs of a tokenizer and more"
    ),
    "sweep": Command(
        "sweep", "SweepConfig", "sweep", "run stages x settings x seeds, with tables over seeds"
    ),
    "improve": Command(
        "improve", "ImproveConfig", "improve", "play, learn, and play again, round after round"
    ),
    "demo": Command("demo", "DemoConfig", "demo", "all of the above on a small game"),
    **{
        f"profile {stage}": Command(
            "profile", f"{stage.title()}Profile", "profile", f"measure what a step of `{stage}` costs"
        )
        for stage in ("tokenizer", "dynamics", "clone", "imagine", "baseline")
    },
    "profile generate": Command(
        "profile_generate", "GenerateProfile", "profile_generate", "measure what a generated frame costs"
    ),
    "info": Command("info", "InfoConfig", "info", "print parameter counts, or what a folder holds"),
    "data info": Command("datasets.info", "DataInfoConfig", "data_info", "count what shards hold"),
    "data show": Command(
        "datasets.show", "ShowConfig", "show", "a page with pictures and films of the clips"
    ),
    "data check": Command("datasets.check", "CheckConfig", "check", "check every byte and clip of shards"),
    "data download": Command(
        "datasets.download",
        "DownloadConfig",
        "data_download",
        "download VPT recordings, continuing where it stopped",
    ),
    "data export": Command(
        "datasets.export", "ExportConfig", "export", "write tables, logs and videos for people"
    ),
    "fetch-weights": Command("fetch", "FetchConfig", "fetch", "download the weights of LPIPS once"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    # OpenMP's threads sleep while they wait for each other; it looks when torch is imported, which commands do later. Where
    # another program holds a core, waiting awake makes two threads many times slower than one (`reverie.nn.threads`).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    end_with_parent()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["help"] and len(given) > 1:
        given = [*given[1:], "--help"]
    if not given or given[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0 if given else USAGE_ERROR
    if given[0] == "--version":
        print(f"reverie {__version__}")
        return 0
    if given[0] in COMMANDS:
        return _run(given[0], given[1:])
    if any(name.startswith(f"{given[0]} ") for name in COMMANDS):
        return _run_member(given[0], given[1:])
    meant = did_you_mean(given[0], [*COMMANDS, "help", "--help", "--version"])
    return _fail(
        f"unknown command {given[0]!r}" + (meant or f"; use one of {', '.join(COMMANDS)}."), USAGE_ERROR
    )


def parse(name: str, arguments: Sequence[str]) -> Any:
    """The configuration of command `name` from its flags. Raises `UserError`; exits on --help."""
    command = COMMANDS[name]
    cls = getattr(import_module(f"reverie.pipelines.{command.module}"), command.config)
    parser = _parser(name, cls)
    try:
        parser.set_defaults(_preset_defaults(name, arguments))
        settings = parser.parse_args(_spelled_out(cls, _with_files(cls, in_form(cls, arguments))))
        values = parser.instantiate(settings)
        return cls(**{field.name: getattr(values, field.name) for field in fields(cls)})
    except (ArgumentError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise UserError(f"{in_our_words(cls, _one_line(error))}; see `reverie {name} --help`.") from None


def _with_files(cls: type, arguments: Sequence[str]) -> list[str]:
    """`arguments` with the contents of settings files, in the parser's form, in place of their paths."""
    full, rest = list[str](), list(arguments)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if flag != "--config" or not (equals or rest):
            full.append(f"{flag}{equals}{value}")
            continue
        full.append(f"--config={read_settings(cls, Path(value if equals else rest.pop(0)))}")
    return full


def _run_member(group: str, arguments: Sequence[str]) -> int:
    """Runs a command of two words, of which `group` is the first."""
    members = [name.split(" ")[1] for name in COMMANDS if name.startswith(f"{group} ")]
    if not arguments:
        return _fail(
            f"{group}: needs one of {', '.join(members)}; see `reverie {group} --help`.", USAGE_ERROR
        )
    if arguments[0] in ("-h", "--help", "help"):
        print(_usage(f"{group} "))
        return 0
    if arguments[0] not in members:
        meant = did_you_mean(arguments[0], members) or "."
        return _fail(
            f"{group}: unknown {arguments[0]!r}; use one of {', '.join(members)}{meant}", USAGE_ERROR
        )
    return _run(f"{group} {arguments[0]}", arguments[1:])


def _run(name: str, arguments: Sequence[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        command = COMMANDS[name]
        if text := help_text(name, f"pipelines.{command.module}", command.config):
            print(text)
            return 0
    from reverie.pipelines.runs.stops import Stopped

    _show_log()
    try:
        config = parse(name, arguments)
    except UserError as error:
        return _fail(str(error), USAGE_ERROR)
    except KeyboardInterrupt:
        return _fail("interrupted before anything was done.", INTERRUPTED)
    try:
        getattr(import_module(f"reverie.pipelines.{COMMANDS[name].module}"), COMMANDS[name].function)(config)
        for line in ending(name, config):
            print(line, flush=True)
    except Stopped as stopped:
        return _fail(str(stopped), INTERRUPTED)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command continues from what is saved.", INTERRUPTED)
    except UserError as error:
        return _fail(str(error), USER_ERROR)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has left, as in `| head`
        return USER_ERROR
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _fail(f"{place}{error.strerror or error}.", USER_ERROR)
    return 0


def _show_log() -> None:
    """What modules tell of their choices goes to stderr, from the first of several processes."""
    log = logging.getLogger("reverie")
    first = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"
    log.handlers = [logging.StreamHandler()] if first else []
    log.setLevel(logging.INFO)


def _parser(name: str, cls: type) -> Any:
    from jsonargparse import ActionConfigFile, ArgumentParser, set_parsing_settings
    from jsonargparse.typing import register_type

    from reverie.pipelines.presets import presets_of

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    register_type(Url)
    parser = ArgumentParser(prog=f"reverie {name}", description=cls.__doc__, exit_on_error=False)
    parser.add_argument(
        "--config", action=ActionConfigFile, help="YAML file of these settings; may be repeated"
    )
    if presets := presets_of(name):
        parser.add_argument("--preset", type=str, help=f"sizes that belong together: {', '.join(presets)}")
    parser.add_class_arguments(cls)
    return parser


def _spelled_out(cls: type, arguments: Sequence[str]) -> list[str]:
    """`arguments` as jsonargparse wants them.

    --path before a first or last lone word, if `cls` has a path; --runs before the first lone words, if it has runs; =true
    behind switches; + behind the names of lists.
    """
    hints = get_type_hints(cls)
    switches = {f"--{name}" for name, kind in hints.items() if kind is bool}
    lists = {f"--{name}" for name, kind in hints.items() if get_origin(kind) is list}
    full: list[str] = []
    for argument, following in zip(arguments, [*arguments, ""][1:], strict=True):
        lone = argument in switches and following.lower() not in ("true", "false")
        full.append(
            f"{argument}=true" if lone else argument + "+" * (argument in lists and following[:1] != "[")
        )
    # Lone words at the beginning stand for the fields that a command names in WORDS.
    for place, name in enumerate(getattr(cls, "WORDS", ())):
        if len(full) <= 2 * place or full[2 * place].startswith("-"):
            break
        full[2 * place : 2 * place] = [f"--{name}"]
    if "runs" in hints:
        words = next((i for i, word in enumerate(full) if word.startswith("-")), len(full))
        full = [part for word in full[:words] for part in ("--runs+", word)] + full[words:]
    if "path" not in hints or not full:
        return full
    if not full[0].startswith("-"):
        return ["--path", *full]
    ends_in_word = len(full) > 1 and not full[-1].startswith("-")
    belongs_to_flag = ends_in_word and full[-2].startswith("-") and "=" not in full[-2]
    return [*full[:-1], "--path", full[-1]] if ends_in_word and not belongs_to_flag else full


def _preset_defaults(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The chosen preset's settings for command `name`, with dotted keys."""
    from reverie.pipelines.presets import DEFAULT_BASELINES, presets_of
    from reverie.pipelines.runs.configs import flatten, to_plain

    presets = presets_of(name)
    preset = _setting("preset", arguments)
    if preset is None and name.removeprefix(PROFILE) == "baseline":
        preset = DEFAULT_BASELINES.get(_setting("version", arguments))
    if preset is None or not presets:
        return {}
    if preset not in presets:
        meant = did_you_mean(preset, list(presets)).rstrip("?")
        raise UserError(f"--preset {preset}: is not known, choose one of {', '.join(presets)}{meant}")
    return flatten(to_plain(presets[preset]))


def _setting(name: str, arguments: Sequence[str]) -> str | None:
    """--name, or `name:` of the last --config file that has one; it is needed before the arguments are parsed."""
    flags = _flag_values(arguments)
    named = [value for flag, value in flags if flag == f"--{name}"]
    files = [Path(value) for flag, value in flags if flag == "--config"]
    contents = [load_yaml(settings_file(file)) for file in files]
    named = named or [c[name] for c in contents if isinstance(c, dict) and name in c]
    return named[-1] if named else None


def _flag_values(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """(flag, value) of `--flag value` and `--flag=value`, in order."""
    pairs = []
    for argument, following in zip(arguments, [*arguments, ""][1:], strict=True):
        flag, equals, value = argument.partition("=")
        pairs.append((flag, value if equals else following))
    return pairs


def _usage(group: str = "") -> str:
    """The commands, or those that begin with `group`."""
    shown = {name: command for name, command in COMMANDS.items() if name.startswith(group)}
    width = max(map(len, shown))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in shown.items()]
    return "\n".join(
        [f"usage: reverie {group}<command> [--help] [--config FILE] [--field VALUE ...]", "", *lines]
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _fail(message: str, code: int) -> int:
    print(f"reverie: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
