"""A computer with one pretended GPU: memory, contexts, streams, faults, and a record of it all.

In: what the stand-ins for PyCUDA and TensorRT are asked to do. Out: the same results a GPU gives,
and what a test wants to know: `calls`, `violations`, live memory.

Strict where a GPU would fail later than the mistake, or only sometimes:
  device memory is apart from the host's, and holds 0xFF (no number, as a float) until written;
  whatever is asynchronous is done when something waits for it, and not before;
  a context belongs to the thread that made it; a lost context fails every call that follows;
  no thread may end with a context on its stack, were it a lost one: PyCUDA ends the process then.
"""

import os
import sys
import threading

import numpy as np

FIRST_ADDRESS = 0xA00000000
ALIGNMENT = 512
GAP = 1 << 16  # belongs to nobody: what runs over an allocation meets no other
NEVER_WRITTEN = 0xFF
ROUTINES = {"context": "cuCtxCreate", "alloc": "cuMemAlloc", "memcpy": "cuMemcpyHtoDAsync",
            "launch": "cuLaunchKernel", "synchronize": "cuStreamSynchronize",
            "module": "cuModuleLoadDataEx"}
WORK = ("memcpy", "launch", "synchronize", "execute")
ENDING_S = 0.2  # for a thread that is about to end, so that it is seen how


class DeviceFault(Exception):
    """The GPU touched memory that it must not; the context is lost."""


class Allocation:
    """A piece of device memory."""

    def __init__(self, address, size, context):
        self.address = address
        self.bytes = np.full(size, NEVER_WRITTEN, np.uint8)
        self.context = context
        self.what = "memory"


class ContextState:
    """A CUDA context: which thread's, whether it is gone, and what poisoned it."""

    def __init__(self, thread, flags):
        self.thread = thread
        self.flags = flags
        self.gone = False
        self.poison = None  # (class of error, its words)


class ThreadsEnd:
    """Held by nothing but a thread's local data: its own end is the thread's."""

    def __init__(self, thread, contexts, violation):
        self._ident, self._name = thread.ident, thread.name
        self._contexts, self._violation = contexts, violation

    def __del__(self, get_ident=threading.get_ident, ending=sys.is_finalizing):
        # In another thread it is not the thread that went, but the machine.
        if self._contexts and get_ident() == self._ident and not ending():
            self._violation("thread {} ended with {} on its stack, at which PyCUDA ends the process"
                            .format(self._name, "a lost context" if self._contexts[-1].poison
                                    else "a context"))


class Operation:
    """Something that waits in a stream."""

    def __init__(self, stream, name, work):
        self.stream = stream
        self.name = name
        self.work = work


class Machine:
    """The computer. `gpu` None: it has none. Memory in bytes; a capability is (major, minor)."""

    def __init__(self, gpu="NVIDIA Tegra X1", compute_capability=(5, 3), multiprocessors=1,
                 total_memory=4 << 30, cuda=(10, 2, 0)):
        self.gpu = gpu
        self.compute_capability = compute_capability
        self.multiprocessors = multiprocessors
        self.total_memory = total_memory
        self.cuda = cuda
        self.errors = None  # PyCUDA's error classes, which the driver brings
        self.calls = []  # (name, detail) of each call, in order
        self.violations = []  # what a GPU may let pass today and not tomorrow, one line each
        self.allocations = {}
        self.streams = {}
        self.builds = []  # fake_tensorrt.building.Build, one for each plan built
        self.tactics_needed = ()  # TensorRT's names of sources without which a build fails
        self._faults = []
        self._pending = []
        self._stacks = threading.local()
        self._threads = []  # (thread, its stack of contexts), without the main thread
        self._contexts = []
        self._initialised_in = None
        self._next_address = FIRST_ADDRESS
        self._next_handle = 0x55500000

    # What tests ask and arrange.

    def count(self, name):
        """How often something was called."""
        return sum(1 for called, _ in self.calls if called == name)

    def live_bytes(self):
        """Device memory in use."""
        return sum(len(each.bytes) for each in self.allocations.values())

    def fail_next(self, what, error=None, poisons=None, skip=0):
        """The next `what` fails, after `skip` that do not.

        `what`: context, alloc, memcpy, launch, synchronize, module; of TensorRT: build,
        deserialize, execution_context, execute. `error` is one of PyCUDA's, or words; out of memory
        for alloc if not given, else a launch failure. It poisons the context where the GPU was at
        work and memory did not run out, unless `poisons` says otherwise.
        """
        if not isinstance(error, Exception):
            kind = self.errors.MemoryError if what == "alloc" else self.errors.LaunchError
            usual = "out of memory" if what == "alloc" else "unspecified launch failure"
            error = kind("{} failed: {}".format(ROUTINES.get(what, what), error or usual))
        if poisons is None:
            poisons = what in WORK and not isinstance(error, self.errors.MemoryError)
        self._faults.append([what, skip, error, poisons])

    def lose(self, words="an illegal memory access was encountered"):
        """Poisons every context from now on, as a fault that the GPU meets by itself."""
        for context in self._contexts:
            context.poison = (self.errors.LogicError, words)

    def is_lost(self):
        """Whether a context of this machine is poisoned."""
        return any(each.poison for each in self._contexts)

    def leftovers(self):
        """What is still there, as violations; a lost context may leave anything behind."""
        for thread, stack in self._threads:
            if stack and thread is not threading.current_thread():
                thread.join(ENDING_S)
        left = []
        for context in self._contexts:
            if not context.gone and not context.poison:
                left.append("a context was neither popped nor detached")
        return left

    # What the stand-ins use.

    def called(self, name, detail=None):
        """Notes a call."""
        self.calls.append((name, detail))

    def fault(self, what):
        """Raises what was arranged by `fail_next`, once."""
        for fault in self._faults:
            if fault[0] != what:
                continue
            if fault[1]:
                fault[1] -= 1
                return
            self._faults.remove(fault)
            error, poisons = fault[2:]
            if poisons:
                context = self._current_or_none()
                if context is not None:
                    words = str(error).split("failed: ", 1)[-1]
                    context.poison = (type(error), words)
            try:
                raise error
            finally:
                # An error that its own frame holds is freed by the collector alone, and with it
                # whatever the frames above hold: real errors of PyCUDA's are not like that.
                del error, fault

    def violation(self, text):
        """Notes a rule that was broken."""
        self.violations.append(text)

    def initialise(self):
        """cuInit."""
        self.called("init")
        if self.gpu is None:
            raise self.errors.RuntimeError("cuInit failed: no CUDA-capable device is detected")
        if self._initialised_in is None:
            self._initialised_in = os.getpid()

    def check_initialised(self, routine):
        """Raises LogicError before `initialise`, and in a process forked after it."""
        if self._initialised_in is None:
            raise self.errors.LogicError(routine + " failed: initialization error")
        if self._initialised_in != os.getpid():
            self.violation(routine + " in a process forked after CUDA had started")
            raise self.errors.LogicError(routine + " failed: initialization error")

    def _stack(self):
        if not hasattr(self._stacks, "contexts"):
            self._stacks.contexts = []
            thread = threading.current_thread()
            if thread is not threading.main_thread():
                self._threads.append((thread, self._stacks.contexts))
                self._stacks.end = ThreadsEnd(thread, self._stacks.contexts, self.violation)
        return self._stacks.contexts

    def _current_or_none(self):
        stack = self._stack()
        return stack[-1] if stack else None

    def current(self, routine):
        """The context of this thread; raises LogicError without one, its poison if it has one."""
        self.check_initialised(routine)
        context = self._current_or_none()
        if context is None:
            living = [each for each in self._contexts if not each.gone]
            if any(each.thread != threading.get_ident() for each in living):
                self.violation("{} in thread {}, which is not the context's".format(
                    routine, threading.current_thread().name))
            raise self.errors.LogicError(routine + " failed: invalid device context")
        if context.poison:
            raise context.poison[0]("{} failed: {}".format(routine, context.poison[1]))
        return context

    def make_context(self, flags):
        """A new context, current in this thread."""
        self.check_initialised("cuCtxCreate")
        self.called("make_context", flags)
        self.fault("context")
        context = ContextState(threading.get_ident(), flags)
        self._contexts.append(context)
        self._stack().append(context)
        return context

    def push(self, context):
        """Makes a context current; only in its own thread."""
        self.called("push")
        if context.gone or context.thread != threading.get_ident():
            self.violation("a context was pushed {}".format(
                "after it was detached" if context.gone else "in another thread than its own"))
            raise self.errors.LogicError("cuCtxPushCurrent failed: invalid device context")
        self._stack().append(context)

    def pop(self):
        """The context on top is current no more."""
        self.called("pop")
        stack = self._stack()
        if not stack:
            raise self.errors.LogicError(
                "context::pop failed: invalid device context - cannot pop non-current context")
        context = stack[-1]
        if not context.poison:
            self.drain_all()
        stack.pop()
        if context not in stack:
            self._living_in(context, "popped")

    def detach(self, context):
        """The end of a context; its memory goes with it."""
        self.called("detach")
        if context.gone:
            raise self.errors.LogicError("context::detach failed: invalid device context")
        if context.thread != threading.get_ident():
            self.violation("a context was detached in another thread than its own")
        if context in self._stack():
            self._stack().remove(context)
        self._living_in(context, "detached")
        context.gone = True
        for allocation in list(self.allocations.values()):
            if allocation.context is context:
                del self.allocations[allocation.address]

    def _living_in(self, context, what):
        living = [each for each in self.allocations.values() if each.context is context]
        if living and not context.poison:
            self.violation("a context was {} while it held {}".format(what, ", ".join(
                sorted("{} bytes of {}".format(len(each.bytes), each.what) for each in living))))

    # Memory.

    def allocate(self, size):
        """cuMemAlloc."""
        context = self.current("cuMemAlloc")
        self.called("mem_alloc", size)
        if size < 1:
            raise self.errors.LogicError("cuMemAlloc failed: invalid argument")
        self.fault("alloc")
        if self.live_bytes() + size > self.total_memory:
            raise self.errors.MemoryError("cuMemAlloc failed: out of memory")
        allocation = Allocation(self._next_address, size, context)
        whole = -(-(size + GAP) // ALIGNMENT) * ALIGNMENT
        self._next_address += whole
        self.allocations[allocation.address] = allocation
        return allocation

    def free(self, allocation):
        """cuMemFree, which waits for the GPU first. In a lost or dead context nothing happens."""
        self.called("mem_free", len(allocation.bytes))
        context = allocation.context
        if context.gone:
            self.violation("{} was freed after its context was gone".format(allocation.what))
            return
        if context.thread != threading.get_ident():
            self.violation("{} was freed in another thread than its context's".format(
                allocation.what))
            return
        if context not in self._stack():
            self.violation("{} was freed after its context was popped".format(allocation.what))
        elif not context.poison:
            self.drain_all()
        self.allocations.pop(allocation.address, None)

    def place(self, address, size):
        """The bytes at a device address, a view; raises DeviceFault with the reason in words."""
        for allocation in self.allocations.values():
            start = address - allocation.address
            if 0 <= start < len(allocation.bytes):
                if start + size > len(allocation.bytes):
                    raise DeviceFault("{} bytes at {:#x}, where the allocation has {} left".format(
                        size, address, len(allocation.bytes) - start))
                return allocation.bytes[start:start + size]
        raise DeviceFault("{:#x} is no device address".format(address))

    def array(self, address, shape, dtype):
        """Device memory as an array, a view; raises DeviceFault."""
        dtype = np.dtype(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        if address % dtype.itemsize:
            raise DeviceFault("{:#x} is not aligned for {}".format(address, dtype))
        return self.place(address, count * dtype.itemsize).view(dtype).reshape(shape)

    # Streams. 0 is the default stream: what is in it waits for all before, and all wait for it.

    def new_stream(self):
        """The handle of a new stream."""
        self.current("cuStreamCreate")
        self._next_handle += 0x10
        self.streams[self._next_handle] = self._current_or_none()
        return self._next_handle

    def end_stream(self, handle):
        """What is in the stream is still done."""
        context = self.streams.pop(handle, None)
        if context is None or context.gone or context.poison:
            return
        if context.thread == threading.get_ident() and context in self._stack():
            self.drain(handle)

    def enqueue(self, handle, name, work):
        """Has `work()` done in a stream's turn; it may raise DeviceFault."""
        if handle and handle not in self.streams:
            self.violation("{} in a stream that does not exist".format(name))
            raise self.errors.LogicError(name + " failed: invalid resource handle")
        self._pending.append(Operation(handle, name, work))

    def drain(self, handle):
        """Does what waits in one stream and whatever that had to wait for."""
        own = [place for place, each in enumerate(self._pending) if each.stream in (handle, 0)]
        barriers = [place for place in own if self._pending[place].stream == 0]
        until = barriers[-1] if barriers else -1
        chosen = set(own) | set(range(until + 1))
        running = [each for place, each in enumerate(self._pending) if place in chosen]
        self._pending = [each for place, each in enumerate(self._pending) if place not in chosen]
        self._run(running)

    def drain_all(self):
        """Does everything that waits."""
        running, self._pending = self._pending, []
        self._run(running)

    def _run(self, operations):
        context = self._current_or_none()
        for operation in operations:
            try:
                operation.work()
            except DeviceFault as fault:
                self.violation("{}: {}".format(operation.name, fault))
                if context is not None:
                    context.poison = (self.errors.LogicError,
                                      "an illegal memory access was encountered")
                return

    def synchronize(self, handle, routine):
        """Waits for a stream, None for all; raises what went wrong in it."""
        self.current(routine)
        self.called("synchronize")
        self.fault("synchronize")
        if handle is None:
            self.drain_all()
        else:
            self.drain(handle)
        self.current(routine)
