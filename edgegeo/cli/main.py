"""The entry point: builds the command tree, runs one verb, and turns whatever happens into an exit code.

Exit codes: 0 done; 1 a fault of edgegeo itself (please report it); 2 something the user can mend, in one line on
stderr; 130 and 143 interrupted. A traceback only with --debug.
"""

import importlib
import os
import signal
import sys
from typing import Annotated, Any, NoReturn

import typer

import edgegeo
from edgegeo.cli.flags import flag
from edgegeo.errors import EdgegeoError

VERBS = (
    "export", "calibrate", "locate", "serve", "verify", "lint", "compile", "embed", "eval", "fit", "plan", "doctor",
    "wheelhouse",
)  # fmt: skip
GROUPS = ("bench", "index", "train", "planet", "data")
EXTRAS = {
    "onnxruntime": "cpu",
    "fastapi": "serve",
    "starlette": "serve",
    "uvicorn": "serve",
    "python_multipart": "serve",
    "prometheus_client": "serve",
    "torch": "train",
    "transformers": "train",
    "peft": "train",
    "safetensors": "train",
    "num2words": "train",
    "onnx": "export",
    "onnxscript": "export",
    "onnx_ir": "export",
    "rasterio": "geotiff",
    "ray": "ray",
    "psycopg": "postgres",
}
"""Which extra brings the module that a verb missed."""
_INTERRUPTED = 130


def build_app() -> typer.Typer:
    """The whole command tree. Importing a verb's module is cheap: what it needs it imports when it runs."""
    app = typer.Typer(
        name="edgegeo",
        help="Multimodal LLMs that know where things are: shrink them, and run them in the field.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name in VERBS:
        app.command(name)(importlib.import_module(f"edgegeo.cli.{name}").command)
    for name in GROUPS:
        app.add_typer(importlib.import_module(f"edgegeo.cli.{name}").group(), name=name)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        print(f"edgegeo {edgegeo.__version__}")
        raise typer.Exit()


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_version)
    ] = False,
    debug: Annotated[bool, flag("--debug", help="Show the traceback of an error; may stand anywhere.")] = False,
) -> None:
    """Multimodal LLMs that know where things are: shrink them, and run them in the field."""


def run(args: list[str] | None = None) -> NoReturn:
    """Run the command line and exit; `args` without the program's name, by default those of this process."""
    words = list(sys.argv[1:] if args is None else args)
    own = words[: words.index("--")] if "--" in words else words
    debug = "--debug" in own or os.environ.get("EDGEGEO_DEBUG", "").lower() in ("1", "true", "yes", "on")
    words = [word for i, word in enumerate(words) if not (word == "--debug" and i < len(own))]
    _stop_cleanly_on_sigterm()
    code = _guarded(words, debug)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader left (`| head`): nothing to say, and Python must not try to flush again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _guarded(words: list[str], debug: bool) -> int:
    try:
        outcome: Any = build_app()(args=words, prog_name="edgegeo", standalone_mode=False)
        if outcome == _INTERRUPTED:  # what typer makes of Ctrl-C, without a word
            raise KeyboardInterrupt
        return outcome if isinstance(outcome, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", _INTERRUPTED)
    except BrokenPipeError:
        return 0
    except Exception as error:
        if debug and not hasattr(error, "format_message"):
            raise
        return _fail(*_explain(error, words))


def _explain(error: Exception, words: list[str]) -> tuple[str, int]:
    """The one line and the exit code for an error."""
    if isinstance(error, EdgegeoError):
        return f"error: {error}", 2
    if hasattr(error, "format_message"):  # typer's own usage errors, whichever typer raised them
        said = "" if type(error).__name__ == "NoArgsIsHelpError" else str(error.format_message()).rstrip(".")
        return f"error: {said or 'name a verb'} (see edgegeo {_verb(words)}--help)", 2
    if isinstance(error, ImportError) and (extra := _extra(error, words)):
        module = (error.name or "").split(".")[0]
        return f"error: this needs {module}, which is not installed; pip install 'edgegeo[{extra}]'", 2
    if isinstance(error, MemoryError):
        return "error: out of memory; try a smaller --batch or a smaller precision", 2
    return f"error: {type(error).__name__}: {error} (not expected: run again with --debug and report it)", 1


def _extra(error: ImportError, words: list[str]) -> str | None:
    extra = EXTRAS.get((error.name or "").split(".")[0])
    # Torch comes with both extras; the one that the verb needs whole is the one to name.
    return "export" if extra == "train" and words and words[0] != "train" else extra


def _verb(words: list[str]) -> str:
    names = [word for word in words[:2] if word.isalpha()]
    if not names or names[0] not in (*VERBS, *GROUPS):
        return ""
    return " ".join(names if names[0] in GROUPS else names[:1]) + " "


def _fail(message: str, code: int) -> int:
    print(" ".join(message.split()), file=sys.stderr)
    return code


def _stop_cleanly_on_sigterm() -> None:
    """Make `kill` unwind like Ctrl-C, so that half-written folders are removed. The server sets its own handler."""

    def stop(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
