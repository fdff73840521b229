"""Which TensorRT is here, what it says, and where its versions differ.

In: nothing. Out: NVIDIA's module, a logger it can speak to. What a version can do is asked of the
module itself, never of its number.
"""

import collections
import contextlib
import gc
import importlib
import logging

from jetson_cluster.checking import one_line
from jetson_cluster.errors import WorldError

log = logging.getLogger(__name__)

#: JetPack's and the data centre's; TensorRT for RTX, which has most of the same names.
MODULES = ("tensorrt", "tensorrt_rtx")
RTX = "tensorrt_rtx"
REMEMBERED = 3  # lines; the first error of a failure is often followed by two that repeat it

# TensorRT keeps a bare pointer to a logger until the last thing it was given to is gone.
_LOGGERS = []


def find():
    """The TensorRT module that is installed; raises WorldError, which says how to get one."""
    found = []
    for name in MODULES:
        try:
            module = importlib.import_module(name)
        except (ImportError, OSError) as error:  # OSError: its libraries are missing
            found.append(one_line(error))
            continue
        if not hasattr(module, "Builder"):
            found.append("'%s' is a folder here, not NVIDIA's" % name)
        elif not hasattr(module.Builder, "build_serialized_network"):
            found.append("%s %s is too old, 8.2 is the least" % (name, module.__version__))
        else:
            return module
    raise WorldError(
        "TensorRT is not to be had (%s); on a Jetson 'apt-get install python3-libnvinfer' and a "
        "virtual environment made with --system-site-packages, elsewhere 'pip install tensorrt'"
        % "; ".join(found))


def precision_is_the_graphs(trt) -> bool:
    """Whether TensorRT computes in the ONNX file's own precisions and no others (11, RTX)."""
    return not hasattr(trt.BuilderFlag, "FP16")


def keeps_timings(trt) -> bool:
    """Whether building times anything; TensorRT for RTX has the names, but they do nothing."""
    return trt.__name__ != RTX


@contextlib.contextmanager
def without_collecting():
    """Within it Python frees nothing but what nobody refers to any more, at once.

    TensorRT speaks to its logger while it holds a lock. Should Python collect garbage just then, and
    find an older builder among it, that one's end would wait for the same lock for ever (seen with
    TensorRT-RTX 1.7).
    """
    gc.collect()
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def make_logger(trt):
    """What TensorRT reports to: an instance of its ILogger.

    Everything goes to `logging`, and the last warnings and errors are kept for a message.
    `on_line()`, where set, is called at each line, from whichever thread TensorRT speaks in.
    """
    severity = trt.ILogger.Severity
    errors = (severity.INTERNAL_ERROR, severity.ERROR)

    class Logger(trt.ILogger):
        """Keeps every exception to itself: one that left log() would abort the process in 8.2."""

        def __init__(self):
            trt.ILogger.__init__(self)
            self.on_line = None
            self._errors = collections.deque(maxlen=REMEMBERED)
            self._warnings = collections.deque(maxlen=REMEMBERED)
            self._caught = None

        def log(self, level, message):
            try:
                self._take(level, one_line(message))
                if self.on_line is not None:
                    self.on_line()
            except BaseException as error:  # also Ctrl-C, which Python raises wherever it is
                self._caught = error
                self.on_line = None

        def _take(self, level, text):
            if level in errors:
                self._errors.append(text)
                # While it builds it calls every kernel that does not fit an error, and goes on.
                tell = log.error if self.on_line is None else log.info
                tell("TensorRT: %s", text)
                return
            if level == severity.WARNING:
                self._warnings.append(text)
            # TensorRT warns of what is no concern of the operator's, such as its own INT64 weights.
            log.debug("TensorRT: %s", text)

        def forget(self) -> None:
            """What was said so far belongs to something else."""
            self._errors.clear()
            self._warnings.clear()

        def last_errors(self) -> str:
            """The last errors, or for want of any the last warnings, on one line."""
            return "; ".join(self._errors or self._warnings) or "TensorRT does not say why"

        def reraise(self) -> None:
            """Raise what came up while TensorRT spoke; to be called once it has returned."""
            caught, self._caught = self._caught, None
            if caught is not None:
                raise caught

    logger = Logger()
    _LOGGERS.append(logger)
    return logger
