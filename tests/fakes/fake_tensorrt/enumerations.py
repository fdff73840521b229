"""TensorRT's enumerations, with the members and numbers of each version.

pybind11's are no ints: int() gives the number; only some compare with numbers.
"""


class Enumeration:
    """A member of one of TensorRT's enumerations."""

    __slots__ = ("_number",)

    def __init__(self, value):
        if type(value) is not int or value not in self._by_number:
            raise TypeError("{}({!r})".format(type(self).__name__, value))
        object.__setattr__(self, "_number", value)

    def __setattr__(self, name, value):
        raise AttributeError("can't set attribute " + name)

    @property
    def name(self):
        return self._by_number[self._number]

    @property
    def value(self):
        return self._number

    def __int__(self):
        return self._number

    def __eq__(self, other):
        return type(other) is type(self) and other._number == self._number

    def __ne__(self, other):
        return not self == other

    def __hash__(self):
        return hash(self._number)

    def __repr__(self):
        return "<{}.{}: {}>".format(type(self).__name__, self.name, self._number)

    def __str__(self):
        return "{}.{}".format(type(self).__name__, self.name)


class Arithmetic(Enumeration):
    """One that also compares with numbers."""

    __slots__ = ()

    def _other(self, other):
        return other if isinstance(other, int) else int(other)

    def __eq__(self, other):
        return isinstance(other, (int, type(self))) and self._number == int(other)

    def __lt__(self, other):
        return self._number < self._other(other)

    def __le__(self, other):
        return self._number <= self._other(other)

    def __gt__(self, other):
        return self._number > self._other(other)

    def __ge__(self, other):
        return self._number >= self._other(other)

    __hash__ = Enumeration.__hash__


def enumeration(name, members, base=Enumeration):
    """A class with these members, {name: number}."""
    made = type(name, (base,), {"__slots__": (), "__module__": "tensorrt.tensorrt",
                                "_by_number": {number: word for word, number in members.items()}})
    made.__members__ = {}
    for word, number in members.items():
        made.__members__[word] = made(number)
        setattr(made, word, made.__members__[word])
    return made


def numbered(*names):
    """{name: its place}."""
    return {name: place for place, name in enumerate(names)}


# pyCore.cpp of 8.2; members of the modules 8.6.1, 10.3.0 and 11.0.0.114.
FLAGS = {
    8: dict(FP16=0, INT8=1, DEBUG=2, GPU_FALLBACK=3, STRICT_TYPES=4, REFIT=5,
            DISABLE_TIMING_CACHE=6, TF32=7, SPARSE_WEIGHTS=8, SAFETY_SCOPE=9),
    10: dict(FP16=0, INT8=1, DEBUG=2, GPU_FALLBACK=3, REFIT=4, DISABLE_TIMING_CACHE=5, TF32=6,
             SPARSE_WEIGHTS=7, SAFETY_SCOPE=8),
    11: dict(DEBUG=2, GPU_FALLBACK=3, REFIT=4, DISABLE_TIMING_CACHE=5, TF32=6, SPARSE_WEIGHTS=7,
             SAFETY_SCOPE=8),
}
NETWORK_FLAGS = {
    8: dict(EXPLICIT_BATCH=0, EXPLICIT_PRECISION=1),
    10: dict(EXPLICIT_BATCH=0, STRONGLY_TYPED=1),
    11: dict(STRONGLY_TYPED=0, PREFER_JIT_PYTHON_PLUGINS=1, PREFER_AOT_PYTHON_PLUGINS=2),
}
ERROR_CODES = numbered(
    "SUCCESS", "INTERNAL_ERROR", "MEM_ALLOC_FAILED", "MODEL_DESERIALIZE_FAILED", "INVALID_VALUE",
    "INVALID_GRAPH", "INVALID_NODE", "UNSUPPORTED_GRAPH", "UNSUPPORTED_NODE")


def define(world):
    """The enumerations of this version."""
    major, version = world.version[0], world.version
    made = {
        "DataType": enumeration("DataType", numbered("FLOAT", "HALF", "INT8", "INT32", "BOOL")),
        "BuilderFlag": enumeration("BuilderFlag", FLAGS[major], Arithmetic),
        "NetworkDefinitionCreationFlag": enumeration(
            "NetworkDefinitionCreationFlag", NETWORK_FLAGS[major], Arithmetic),
        "ErrorCode": enumeration("ErrorCode", ERROR_CODES),
        "ProfilingVerbosity": enumeration(
            "ProfilingVerbosity", numbered("LAYER_NAMES_ONLY", "NONE", "DETAILED")),
    }
    sources = ["CUBLAS", "CUBLAS_LT", "CUDNN"] if major < 11 else []
    if version >= (8, 4):
        sources += ["EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"]
        made["MemoryPoolType"] = enumeration("MemoryPoolType", numbered(
            "WORKSPACE", "DLA_MANAGED_SRAM", "DLA_LOCAL_DRAM", "DLA_GLOBAL_DRAM"))
    made["TacticSource"] = enumeration("TacticSource", numbered(*sources), Arithmetic)
    if version >= (8, 5):
        made["TensorIOMode"] = enumeration("TensorIOMode", numbered("NONE", "INPUT", "OUTPUT"))
    for short, name in (("float32", "FLOAT"), ("float16", "HALF"), ("int8", "INT8"),
                        ("int32", "INT32"), ("bool", "BOOL")):
        made[short] = getattr(made["DataType"], name)
    return made
