"""Running an engine: the one place that knows how TensorRT is told where its tensors lie.

From 8.5 tensors have names and addresses; until 9 they were a list of bindings by number. Which of
the two an engine has is asked of it.
"""

from jetson_cluster.errors import WorldError


class Execution:
    """An engine with one input and one output, ready to run. Use it in the engine's own thread."""

    def __init__(self, trt, logger, engine, path: str):
        """Raises WorldError if TensorRT cannot set it up; `path` is the plan's, for the message."""
        logger.forget()
        self._names = hasattr(engine, "num_io_tensors")
        if self._names:
            names = [engine.get_tensor_name(place) for place in range(engine.num_io_tensors)]
            self._input, = [name for name in names
                            if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
            self._output, = [name for name in names if name != self._input]
            input_shape = engine.get_tensor_shape(self._input)
            output_shape = engine.get_tensor_shape(self._output)
        else:
            self._input, = [place for place in range(engine.num_bindings)
                            if engine.binding_is_input(place)]
            self._output = 1 - self._input
            input_shape = engine.get_binding_shape(self._input)
            output_shape = engine.get_binding_shape(self._output)
        self._image = tuple(input_shape)[1:]
        self.dimension = tuple(output_shape)[1]
        self._context = engine.create_execution_context()
        if self._context is None:
            raise WorldError("engine %s: TensorRT cannot set it up to run: %s; if memory is short, "
                             "set a smaller batch" % (path, logger.last_errors()))

    def enqueue(self, rows: int, planes: int, embeddings: int, stream) -> bool:
        """Have `rows` images run, from device address to device address; False if TensorRT refuses.

        `planes` is float32 [rows, 3, H, W], `embeddings` float32 [rows, dimension], both on multiples
        of 256 bytes.
        """
        shape = (rows,) + self._image
        context = self._context
        if self._names:
            return bool(context.set_input_shape(self._input, shape)
                        and context.set_tensor_address(self._input, planes)
                        and context.set_tensor_address(self._output, embeddings)
                        and context.execute_async_v3(stream.handle))
        bindings = [0, 0]
        bindings[self._input], bindings[self._output] = planes, embeddings
        return bool(context.set_binding_shape(self._input, shape)
                    and context.execute_async_v2(bindings, stream.handle))

    def close(self) -> None:
        """Free it; the engine comes after."""
        self._context = None
