"""The command `jetson-cluster`: every verb in one table, its code imported only when it runs.

In: arguments. Out: an exit code, 0 done, 1 the world failed, 2 the user's input is wrong, 3 the GPU is
lost; a failure is one line on standard error.
"""

import argparse
import contextlib
import importlib
import io
import logging
import os
import sqlite3
import sys
from typing import List, NamedTuple, Optional

from jetson_cluster import __version__, logs
from jetson_cluster.errors import GpuLost, JetsonClusterError, WorldError


class Verb(NamedTuple):
    """A verb: the module with its add_arguments(parser) and run(args) -> exit code."""

    name: str
    module: str
    summary: str


VERBS = (
    Verb("run", "jetson_cluster.verbs.run", "watch the inbox and keep queue.csv true (flight)"),
    Verb("once", "jetson_cluster.verbs.once", "empty the inbox, write queue.csv, exit (flight)"),
    Verb("queue", "jetson_cluster.verbs.queue", "show the head of the queue (flight)"),
    Verb("explain", "jetson_cluster.verbs.explain",
         "show why an image stands where it does (flight)"),
    Verb("pass", "jetson_cluster.verbs.pass_", "choose what fits into a pass, mark it sent (flight)"),
    Verb("ack", "jetson_cluster.verbs.marks", "the ground has these images (flight)"),
    Verb("nack", "jetson_cluster.verbs.marks", "these did not arrive: queue them again (flight)"),
    Verb("resend", "jetson_cluster.verbs.marks",
         "queue these again although they were sent or acknowledged (flight)"),
    Verb("hold", "jetson_cluster.verbs.marks", "keep these out of the queue (flight)"),
    Verb("release", "jetson_cluster.verbs.marks", "let held images back into the queue (flight)"),
    Verb("pin", "jetson_cluster.verbs.marks", "put these before all others (flight)"),
    Verb("unpin", "jetson_cluster.verbs.marks", "let these stand where they belong (flight)"),
    Verb("apply", "jetson_cluster.verbs.apply", "carry out a file of orders (flight)"),
    Verb("status", "jetson_cluster.verbs.status", "show how the daemon is doing (flight)"),
    Verb("build", "jetson_cluster.verbs.build", "build the TensorRT engine for this GPU (flight)"),
    Verb("doctor", "jetson_cluster.verbs.doctor", "check all that the daemon needs (flight)"),
    Verb("export", "jetson_cluster.ground.export", "build a network's ONNX file (ground)"),
    Verb("embed", "jetson_cluster.ground.embed", "embed an archive of images once (ground)"),
    Verb("fit", "jetson_cluster.ground.fit", "fit a codebook to an archive of images (ground)"),
    Verb("report", "jetson_cluster.ground.report",
         "show an archive and its clusters as one folder of pages (ground)"),
    Verb("console", "jetson_cluster.ground.console",
         "name and weigh clusters, see the next pass, in a browser (ground)"),
)


def main(arguments: Optional[List[str]] = None) -> int:
    """Run one verb; return its exit code."""
    own_process = arguments is None
    if own_process:
        arguments = sys.argv[1:]
        _print_anything()
    try:
        args = _parsed(arguments)
        logs.start(getattr(args, "verbose", False))
        exit_code = args.run(args)
        _flush()
        return exit_code
    except JetsonClusterError as error:
        exit_code = _failed(str(error), error.exit_code)
        if own_process and isinstance(error, GpuLost):
            # Python's own exit would run CUDA's destructors in a dead context: hang, or abort.
            logging.shutdown()
            _flush()
            sys.stderr.flush()
            os._exit(exit_code)
        return exit_code
    except sqlite3.Error as error:
        return _failed("catalog: %s; is the disk full or failing?" % error, 1)
    except BrokenPipeError:
        return 0  # whoever read our output has seen enough (`| head`)
    except KeyboardInterrupt:
        return _failed("interrupted", 130)


def _print_anything() -> None:
    """No name of a file or cluster may end the program because the terminal cannot show it."""
    for name, made in (("stdin", None), ("stdout", _Output), ("stderr", io.TextIOWrapper)):
        stream = getattr(sys, name)
        if stream is None:
            # It was closed when the program began; no file of ours may get its number.
            os.open(os.devnull, os.O_RDWR)
        elif made is not None:  # Python 3.6 has no reconfigure()
            setattr(sys, name, made(
                stream.detach(), encoding=stream.encoding, errors="backslashreplace",
                line_buffering=stream.line_buffering or name == "stderr"))


class _Output(io.TextIOWrapper):
    """Standard output; where it cannot be written to, that is said once, and not again at exit."""

    def write(self, text: str) -> int:
        with self._told():
            return super().write(text)

    def flush(self) -> None:
        with self._told():
            super().flush()

    @contextlib.contextmanager
    def _told(self):
        try:
            yield
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            if isinstance(error, BrokenPipeError):
                raise
            raise WorldError("standard output: cannot be written to: %s" % error.strerror)


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _failed(message: str, exit_code: int) -> int:
    print("jetson-cluster: error: %s" % logs.printable(message), file=sys.stderr)
    return exit_code


def _parsed(arguments: List[str]) -> argparse.Namespace:
    try:
        return _parser(arguments).parse_args(arguments)
    except SystemExit:
        _flush()  # of help or version; what was wrong went to standard error
        raise


def _parser(arguments: List[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jetson-cluster",
        description="Decides on board which images a rover sends first.")
    parser.add_argument("--version", action="version", version="jetson-cluster " + __version__)
    verbs = parser.add_subparsers(metavar="VERB", dest="verb")
    verbs.required = True
    # Only the verb that is asked for is imported: on the rover the ground's modules are not there.
    asked = next((argument for argument in arguments if not argument.startswith("-")), None)
    for verb in VERBS:
        child = verbs.add_parser(verb.name, help=verb.summary, description=verb.summary)
        child.add_argument("-v", "--verbose", action="store_true", help="say more on the way")
        if verb.name == asked:
            try:
                module = importlib.import_module(verb.module)
            except ImportError as error:
                child.set_defaults(run=_needs(verb, error))
                continue
            module.add_arguments(child)
            child.set_defaults(run=module.run)
    return parser


def _needs(verb: Verb, error: ImportError):
    def explain(_args) -> int:
        extra = "ground" if verb.module.startswith("jetson_cluster.ground") else "cpu"
        return _failed("%s needs a package that is not installed (%s); run "
                       "\"pip install '.[%s]'\" in the checkout" % (
                           verb.name, " ".join(str(error).split()), extra), 1)
    return explain
