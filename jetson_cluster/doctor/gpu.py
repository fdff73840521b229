"""The GPU and all that the network needs there: device nodes, TensorRT, PyCUDA, kernels, engine.

In: a Case. Out: one finding a probe. No CUDA context is made: what the driver tells without one is
enough, and the daemon may be using the GPU.
"""

import os
import shlex
import types
from typing import Optional

from jetson_cluster import gpu_losses
from jetson_cluster.doctor.case import TENSORRT, Case, with_config, with_python
from jetson_cluster.doctor.findings import Finding, ok, skip, warn
from jetson_cluster.doctor.libraries import numbers
from jetson_cluster.doctor.people import ENTER, READ, WRITE, group_number

# Without these CUDA does not start; others, for debugging and video, may be closed.
ESSENTIAL_NODES = ("nvmap", "nvhost-ctrl", "nvhost-ctrl-gpu", "nvhost-gpu", "nvhost-as-gpu",
                   "nvidiactl", "nvidia-uvm", "nvidia0", "dxg", "as", "channel", "ctrl")
GPU_GROUP = "video"
LEAST_TENSORRT = (8, 2)  # JetPack 4.6.1's; that for RTX, which counts anew, is newer
LEAST_CAPABILITY = (5, 3)  # the Nano's, which the kernels are written for
KERNELS = ("nearest", "preprocess")
ABSENT = "absent"


def nodes(case: Case) -> Finding:
    """Whether the daemon's user may open the GPU's device nodes."""
    there = case.gpu_nodes
    if not there and first_gpu(case):
        return ok("none in /dev, but CUDA finds a GPU")
    if not there:
        return case.lacking(TENSORRT, "no device node of an NVIDIA GPU in /dev",
                            "/dev/nvhost-* and /dev/nvmap on a Jetson, /dev/nvidia* elsewhere",
                            "in a container: start it with --runtime nvidia")
    person = case.person
    closed = [path for path in there if os.path.basename(path) in ESSENTIAL_NODES
              and not person.may(case.machine.place(path), READ | WRITE)]
    if not closed:
        return ok("%d, user %s may open them" % (len(there), person.name))
    number = group_number(case.machine, GPU_GROUP)
    member = number is not None and number in person.groups
    found = "user %s may not open %s" % (person.name, ", ".join(closed))
    if member:
        return case.lacking(
            TENSORRT, found, "nodes that the group %s may read and write" % GPU_GROUP,
            "ls -l " + " ".join(closed))
    return case.lacking(TENSORRT, found, "membership of the group %s" % GPU_GROUP,
                        "sudo usermod -aG %s %s   # then log in again, or restart the service" % (
                            GPU_GROUP, person.name))


@with_python
def tensorrt(case: Case) -> Finding:
    facts = case.facts("tensorrt")
    if "error" not in facts:
        found = "%s %s in %s" % (facts["name"], facts["version"],
                                 os.path.dirname(str(facts["path"])) or "memory")
        if facts["name"] == "tensorrt" and numbers(str(facts["version"])) < LEAST_TENSORRT:
            return case.lacking(
                TENSORRT, found, "TensorRT 8.2 or newer",
                "install JetPack 4.6.1 or later: see 'system' above" if case.jetson else
                case.pip + " install --upgrade tensorrt")
        return ok(found)
    found = "not installed" if facts.get("absent") else str(facts["error"])
    if not case.jetson:
        return case.lacking(TENSORRT, found, "TensorRT 8.2 or newer",
                            case.pip + " install tensorrt")
    place = case.facts("python")
    if place.get("closed"):
        return case.lacking(
            TENSORRT, found + "; this virtual environment does not see the system's packages",
            "JetPack's TensorRT",
            "python3 -m venv --system-site-packages %s" % place["prefix"])
    return case.lacking(TENSORRT, found, "JetPack's TensorRT",
                        "sudo apt-get install python3-libnvinfer")


@with_python
def pycuda(case: Case) -> Finding:
    facts = case.facts("cuda")
    if "error" not in facts:
        return ok("%s, built for CUDA %s" % (
            facts["pycuda"], ".".join(map(str, facts["built_for"]))))
    needed, mend = "PyCUDA 2022.1 or newer", case.pip + " install 'pycuda>=2022.1'"
    if case.jetson:
        # Its build asks for nvcc, which JetPack leaves out of PATH.
        mend = "PATH=$PATH:/usr/local/cuda/bin %s install --no-build-isolation 'pycuda>=2022.1'" % (
            case.pip)
    if "libcuda.so" in str(facts["error"]):
        needed, mend = "NVIDIA's driver, which brings libcuda.so.1", (
            "in a container: start it with --runtime nvidia")
    return case.lacking(TENSORRT, "not installed" if facts.get("absent") else str(facts["error"]),
                        needed, mend)


def driver(case: Case) -> Finding:
    facts = case.facts("cuda")
    if "error" in facts:
        text = case.machine.text("/proc/driver/nvidia/version")
        if text:
            return skip("%s; its CUDA cannot be asked without PyCUDA" % text.split("\n")[0])
        return skip("cannot be asked without PyCUDA")
    if facts["driver_error"]:
        return case.lacking(TENSORRT, str(facts["driver_error"]),
                            "a driver of NVIDIA's that starts",
                            "sudo dmesg | grep -i -e nvidia -e nvgpu | tail")
    here = (facts["driver"] // 1000, facts["driver"] % 1000 // 10)
    found = "CUDA %d.%d" % here
    if here < tuple(facts["built_for"][:2]):
        return case.lacking(
            TENSORRT, "%s, older than the %s that PyCUDA was built for" % (
                found, ".".join(map(str, facts["built_for"]))),
            "a driver that is no older", "%s install --force-reinstall --no-binary :all: pycuda" % (
                case.pip))
    return ok(found)


def gpu(case: Case) -> Finding:
    found = first_gpu(case)
    if found is not None:
        text = "%s, compute capability %d.%d, %.1f GB" % (
            (found["name"],) + tuple(found["capability"]) + (found["bytes"] / 1e9,))
        if tuple(found["capability"]) < LEAST_CAPABILITY:
            return case.lacking(TENSORRT, text, "compute capability 5.3 or higher")
        return ok(text)
    if "error" in case.facts("cuda"):
        return skip("cannot be asked without PyCUDA")
    return case.lacking(TENSORRT, "none that CUDA knows",
                        "a GPU of NVIDIA's, compute capability 5.3 or higher")


def first_gpu(case: Case) -> Optional[dict]:
    """The GPU that the daemon would take, None if there is none."""
    return next(iter(case.facts("cuda").get("gpus", ())), None)


def kernels(case: Case) -> Finding:
    """The CUDA kernels: compiled already, or a compiler."""
    lacks = _lacks(case, "cuda", "gpu", "config", "model", "numpy")
    if lacks:
        return skip("cannot be told without " + lacks)
    from jetson_cluster.cuda import launcher  # with numpy, and so not before it is known to load

    facts = case.facts("cuda")
    folder = os.path.dirname(os.path.abspath(_plan(case)))
    target = launcher.Target("sm_%d%d" % tuple(first_gpu(case)["capability"]),
                             ".".join(map(str, facts["built_for"])))
    troubles = [_trouble_of_image(launcher, launcher.image_path(
        folder, name, launcher.source_of(name), target)) for name in KERNELS]
    if not any(troubles):
        return ok("compiled for %s, in %s" % (target.architecture, folder))
    damaged = "".join("; " + trouble for trouble in troubles if trouble not in ("", ABSENT))
    compiler = case.machine.which("nvcc") or next(iter(
        case.machine.paths(launcher.USUAL_NVCC)), None)
    if compiler and _makes(case, compiler, target.architecture):
        return ok("not compiled for %s yet%s; %s does it at the next start" % (
            target.architecture, damaged, compiler))
    lacks = "%s does not know that GPU" % compiler if compiler else \
        "no nvcc in PATH nor at %s" % launcher.USUAL_NVCC
    return case.lacking(
        TENSORRT, "not compiled for %s in %s%s, and %s" % (
            target.architecture, folder, damaged, lacks), "a compiler of CUDA's for this GPU",
        "sudo apt-get install cuda-nvcc-%d-%d" % tuple(facts["built_for"][:2]))


def _trouble_of_image(launcher, path: str) -> str:
    """What keeps a compiled kernel from being loaded: ABSENT, or in words; "" for nothing."""
    if not os.path.isfile(path):
        return ABSENT
    try:
        launcher.read_image(path)
    except (OSError, ValueError) as error:
        return "%s: %s" % (os.path.basename(path), getattr(error, "strerror", None) or error)
    return ""


def _makes(case: Case, compiler: str, architecture: str) -> bool:
    """Whether an nvcc makes code for an architecture: from CUDA 13 on it leaves the Nano's out."""
    ran = case.machine.run([compiler, "--list-gpu-code"])
    # Before CUDA 11 it could not be asked; those know all that is older than they are.
    return ran is None or ran.code != 0 or architecture in ran.out.split()


def engine(case: Case) -> Finding:
    """The plan: there and fitting, or whether and why it would be built."""
    lacks = _lacks(case, "config", "model", "numpy", "tensorrt", "cuda", "gpu")
    if lacks:
        return skip("cannot be told without " + lacks)
    from jetson_cluster.embedder import engine as plans

    path, found = _plan(case), first_gpu(case)
    facts = case.facts("tensorrt")
    sought = plans.wanted(
        types.SimpleNamespace(__name__=facts["name"], __version__=facts["version"]), case.model,
        case.batch, plans.Device(found["name"], "%d.%d" % tuple(found["capability"])),
        case.config.tensorrt.workspace_bytes)
    closed = case.unseen("tensorrt.plan", path)
    if closed:
        return case.lacking(TENSORRT, closed.found, closed.needed, closed.mend)
    files = [one for one in (path, plans.certificate_path(path)) if os.path.lexists(one)]
    if case.hidden(path) or not all(os.access(one, READ) for one in files):
        return warn("%s: cannot be read by this user" % path, "a look by one who may", case.as_root)
    unreadable = [one for one in files if not case.person.may(one, READ)]
    if unreadable:
        return case.lacking(
            TENSORRT, "user %s may not read %s" % (case.person.name, " and ".join(unreadable)),
            "an engine that the daemon may read", "sudo chown %s %s" % (
                shlex.quote(case.person.name), " ".join(map(shlex.quote, unreadable))))
    plan = plans.look(path, sought)
    if plan.state == plans.FITS:
        return ok("%s, %.1f MB, built %s in %g s" % (
            path, len(plan.plan) / 1e6, plan.certificate.built_at, plan.certificate.build_s))
    trouble = _building_trouble(case, path)
    if trouble is not None:
        return trouble
    if not case.wants_gpu:
        return skip("%s: none that fits; embedder: %s does not use it" % (path, case.embedder))
    return warn({
        plans.ABSENT: "%s: none there yet, the daemon builds it at its start" % path,
        plans.DIFFERS: "%s: would be built again because %s" % (path, plan.why),
        plans.DAMAGED: "%s: damaged, %s; it would be set aside and built again" % (path, plan.why),
    }[plan.state], "an engine for this model, TensorRT and GPU; building takes minutes on a Nano",
        case.as_person("build"))


def _building_trouble(case: Case, path: str) -> Optional[Finding]:
    """What would keep the daemon from building the engine; None if nothing is known to."""
    folder = os.path.dirname(os.path.abspath(path))
    closed = case.unwritable("tensorrt.plan", folder)
    if closed:
        return case.lacking(TENSORRT, "%s: none that fits; %s" % (path, closed.found),
                            closed.needed, closed.mend)
    if not os.path.isdir(folder) or not case.person.may(folder, WRITE | ENTER):
        return case.lacking(TENSORRT, "%s: none that fits, and user %s cannot write to %s" % (
            path, case.person.name, folder), "a folder to keep the engine in",
            "set tensorrt.plan to a file in another folder")
    from jetson_cluster.embedder import engine as plans

    needed = plans.bytes_to_expect(case.model)
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    if free < needed:
        return case.lacking(TENSORRT, "%s: none that fits, and %.0f MB free there" % (
            path, free / 1e6), "about %.0f MB to keep the engine" % (needed / 1e6))
    lacks = case.facts("tensorrt")["lacks"]
    if lacks and case.model.recipe.precision == "fp16":
        packages = " ".join(name.replace("_", "-") for name in lacks)
        return case.lacking(
            TENSORRT,
            "%s: none that fits, and no %s to make float16 of the model" % (path, packages),
            packages + ", which this TensorRT needs", "%s install %s" % (case.pip, packages))
    return None


def losses(case: Case) -> Finding:
    """How often the GPU was lost of late."""
    hidden = case.hidden(os.path.join(case.config.state_dir, "x"))
    if hidden:
        return skip("cannot be told: %s may not be entered by this user" % hidden)
    recent = len(case.gpu_losses())
    found = "%s within the last %d minutes" % (
        "lost %d times" % recent if recent else "not lost", gpu_losses.WITHIN_S / 60)
    if case.gpu_left:
        found += "; the process that used it last ended without a word, which the next start " \
                 "counts as a loss"
    elif not recent:
        return ok(found)
    if case.gpu_given_up:
        found += ": the daemon starts on the processor"
    return warn(found, "a GPU that holds", "sudo journalctl -u jetson-cluster -k | tail -n 50")


def _plan(case: Case) -> str:
    from jetson_cluster.embedder import engine as plans

    return plans.plan_path(case.model, case.config.tensorrt.plan)


def _lacks(case: Case, *things: str) -> str:
    """The first of `things` that is not there, in words; "" if all are."""
    absent = {
        "config": (case.config is None, "a right config"),
        "model": (case.model is None, "the model"),
        "numpy": (not case.numpy_works, "numpy"),
        "tensorrt": ("error" in case.facts("tensorrt"), "TensorRT"),
        "cuda": ("error" in case.facts("cuda"), "PyCUDA"),
        "gpu": (first_gpu(case) is None, "a GPU")}
    words = [absent[thing][1] for thing in things if absent[thing][0]]
    return " and ".join([", ".join(words[:-1])] * (len(words) > 1) + words[-1:])


PROBES = (("device nodes", nodes), ("TensorRT", tensorrt), ("PyCUDA", pycuda),
          ("CUDA driver", driver), ("GPU", gpu), ("kernels", kernels), ("engine", engine),
          ("GPU losses", with_config(losses)))
