"""Networks and the ONNX parser: onnx reads and checks, this says it in TensorRT's way.

In: ONNX bytes or a file. Out: a network with inputs, outputs and layers, or the parser's errors.
"""

import weakref

from fake_tensorrt.common import check

# The newest operator set and file format that each version reads; beyond 10 the onnx package's own.
NEWEST = {(8, 2): (13, 7), (8, 6): (17, 8), (10, 3): (20, 9)}


class Refused(Exception):
    """Why an ONNX file is not parsed: name of the error's code, text, node, its name and type."""

    def __init__(self, code, text, node=-1, name="", operator=""):
        super().__init__(text)
        self.code, self.text, self.node = code, text, node
        self.name, self.operator = name, operator


def read(model, version):
    """An onnx.ModelProto with every shape inferred; raises Refused."""
    import onnx

    try:
        proto = onnx.load_model_from_string(model)
    except Exception as error:  # protobuf's, whose class depends on its version
        raise Refused("MODEL_DESERIALIZE_FAILED", "the bytes are no ONNX model ({})".format(error))
    if not proto.graph.node:
        raise Refused("MODEL_DESERIALIZE_FAILED", "the bytes are no ONNX model: no nodes in it")
    opset, format_version = NEWEST.get(version[:2], (1000, 1000))
    for each in proto.opset_import:
        if each.domain in ("", "ai.onnx") and each.version > opset:
            raise Refused("UNSUPPORTED_GRAPH", "operator set {}, the newest known is {}".format(
                each.version, opset))
    if proto.ir_version > format_version:
        raise Refused("UNSUPPORTED_GRAPH", "ONNX IR version {}, the newest known is {}".format(
            proto.ir_version, format_version))
    for place, node in enumerate(proto.graph.node):
        if node.domain not in ("", "ai.onnx"):
            raise Refused("UNSUPPORTED_NODE", "no importer for operator {}::{}".format(
                node.domain, node.op_type), place, node.name, node.op_type)
    for each in proto.graph.initializer:
        if each.data_type == onnx.TensorProto.DOUBLE:
            raise Refused("UNSUPPORTED_NODE", "weights {} are double".format(each.name))
    try:
        onnx.checker.check_model(proto)
        return onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    except Exception as error:  # onnx raises its own classes and RuntimeError, by version
        raise Refused("INVALID_GRAPH", " ".join(str(error).split()))


def described(value, types):
    """(name, shape, name of its DataType) of a graph's input or output; raises Refused."""
    tensor = value.type.tensor_type
    if tensor.elem_type not in types:
        raise Refused("UNSUPPORTED_GRAPH", "tensor {} has a type TensorRT has not (ONNX's {})"
                      .format(value.name, tensor.elem_type))
    shape = tuple(each.dim_value if each.HasField("dim_value") else -1
                  for each in tensor.shape.dim)
    return value.name, shape, types[tensor.elem_type]


def define(world):
    """INetworkDefinition, ITensor, ILayer, OnnxParser, ParserError."""
    trt = world.trt

    class ITensor:
        __slots__ = ("_name", "_shape", "_dtype", "_is_input")
        __module__ = "tensorrt.tensorrt"

        def __init__(self, told, is_input):
            self._name, self._shape, self._dtype = told
            self._is_input = is_input

        name = property(lambda self: self._name)
        shape = property(lambda self: trt.Dims(self._shape))
        dtype = property(lambda self: getattr(trt.DataType, self._dtype))
        is_network_input = property(lambda self: self._is_input)
        is_network_output = property(lambda self: not self._is_input)

    class ILayer:
        __slots__ = ("_name",)
        __module__ = "tensorrt.tensorrt"

        def __init__(self, name):
            self._name = name

        name = property(lambda self: self._name)

    @world.strict
    class INetworkDefinition:
        __slots__ = ("_flags", "_logger", "_memory", "_model", "_inputs", "_outputs", "_layers",
                     "_parser", "__weakref__")
        __module__ = "tensorrt.tensorrt"

        def __init__(self, flags, logger, memory):
            self._flags, self._logger, self._memory = flags, logger, memory
            self._model, self._parser = None, None
            self._inputs, self._outputs, self._layers = [], [], []

        num_inputs = property(lambda self: len(self._inputs))
        num_outputs = property(lambda self: len(self._outputs))
        num_layers = property(lambda self: len(self._layers))
        name = property(lambda self: "Unnamed Network 0")
        has_implicit_batch_dimension = world.until(10)(
            property(lambda self: world.version < (10,) and not self._flags & 1))

        def __len__(self):
            return len(self._layers)

        def get_input(self, index):
            return self._place(self._inputs, index, "get_input")

        def get_output(self, index):
            return self._place(self._outputs, index, "get_output")

        def get_layer(self, index):
            return self._place(self._layers, index, "get_layer")

        def _place(self, things, index, what):
            if not 0 <= check(index, int, what) < len(things):
                world.log(self._logger, "ERROR", "{}: no {} among {}".format(
                    what, index, len(things)))
                return None
            return things[index]

    @world.strict
    class ParserError:
        __slots__ = ("_said",)
        __module__ = "tensorrt.tensorrt"

        def __init__(self, said):
            self._said = said

        def code(self):
            return getattr(trt.ErrorCode, self._said.code)

        def desc(self):
            return self._said.text

        def file(self):
            return "ModelImporter.cpp"

        def line(self):
            return 1

        def func(self):
            return "parseGraph"

        def node(self):
            return self._said.node

        @world.since(10)
        def node_name(self):
            return self._said.name

        @world.since(10)
        def node_operator(self):
            return self._said.operator

        def __str__(self):
            return "In node {} ({}): {}: {}".format(
                self.node(), self.func(), self._said.code, self.desc())

    class OnnxParser:
        __slots__ = ("_network", "_memory", "_logger", "_errors", "__weakref__")
        __module__ = "tensorrt.tensorrt"

        def __init__(self, network, logger):
            # It keeps no network alive, in no version.
            self._network = weakref.ref(check(network, INetworkDefinition, "OnnxParser"))
            self._memory = network._memory
            self._logger = check(logger, trt.ILogger, "OnnxParser")
            self._errors = []
            network._parser = weakref.ref(self)
            if world.version >= (8, 6):
                # From here on a network keeps its parser alive, which owns its weights.
                network._parser = lambda: self

        num_errors = property(lambda self: len(self._errors))

        def get_error(self, index):
            if not 0 <= check(index, int, "get_error") < len(self._errors):
                raise IndexError("get_error")
            return ParserError(self._errors[index])

        def clear_errors(self):
            self._errors = []

        def supports_operator(self, op_name):
            import onnx

            return onnx.defs.has(check(op_name, str, "supports_operator"))

        def parse_from_file(self, model):
            check(model, str, "parse_from_file")
            try:
                with open(model, "rb") as stream:
                    content = stream.read()
            except OSError as error:
                return self._refuse(Refused(
                    "MODEL_DESERIALIZE_FAILED", "cannot open {}: {}".format(model, error)))
            return self.parse(content)

        def parse(self, model, path=None):
            content = bytes(memoryview(model))
            network = self._network()
            if network is None:
                world.abort("the network was gone before its parser was done")
            try:
                if world.version < (10,) and not network._flags & 1:
                    raise Refused("INVALID_VALUE", "the network was made without explicit batch")
                proto = read(content, world.version)
                self._fill(network, proto)
            except Refused as refused:
                return self._refuse(refused)
            network._model = proto.SerializeToString()
            return True

        def _refuse(self, refused):
            refused.__context__ = None  # its frames hold this parser, which would be garbage then
            self._errors.append(refused.with_traceback(None))
            world.log(self._logger, "ERROR", "{}: {}".format(refused.code, refused.text))
            return False

        def _fill(self, network, proto):
            from onnx import TensorProto

            types = {TensorProto.FLOAT: "FLOAT", TensorProto.FLOAT16: "HALF",
                     TensorProto.INT8: "INT8", TensorProto.INT32: "INT32",
                     TensorProto.BOOL: "BOOL"}
            if world.version < (10,) and any(
                    each.data_type == TensorProto.INT64 for each in proto.graph.initializer):
                world.log(self._logger, "WARNING", "INT64 weights are cast down to INT32")
            weights = {each.name for each in proto.graph.initializer}
            network._inputs = [ITensor(described(each, types), True)
                               for each in proto.graph.input if each.name not in weights]
            network._outputs = [ITensor(described(each, types), False)
                                for each in proto.graph.output]
            network._layers = [ILayer(node.name or node.output[0]) for node in proto.graph.node]

    return {"INetworkDefinition": INetworkDefinition, "ITensor": ITensor, "ILayer": ILayer,
            "OnnxParser": OnnxParser, "ParserError": ParserError}
