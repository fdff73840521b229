"""The service unit, read by systemd's own checker and held to what the rover's systemd 237 knows.

Not shown here: the service being started. That needs systemd as process 1, which neither a test run
nor a container has; the daemon's side of it (READY, WATCHDOG, SIGTERM) has its own tests.
"""

import os
import pathlib
import re
import shutil
import subprocess

import pytest
import yaml

from jetson_cluster import policy

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "systemd"
SERVICE = FOLDER / "jetson-cluster.service"
PROGRAM = "/opt/jetson-cluster/bin/jetson-cluster"
ROVER_SYSTEMD = 237

# The release of systemd that first had each directive we use, from systemd's manual pages and NEWS.
# 0 stands for the years before the manual pages tell.
SINCE = {
    "After": 0, "Description": 0, "StartLimitIntervalSec": 230,
    "CapabilityBoundingSet": 0, "CPUWeight": 232, "Environment": 0, "EnvironmentFile": 0,
    "ExecStart": 0, "Group": 0, "IOWeight": 230, "KillMode": 0, "KillSignal": 0,
    "LockPersonality": 235, "Nice": 0, "NoNewPrivileges": 187, "NotifyAccess": 0,
    "OOMScoreAdjust": 0, "PrivateTmp": 0, "ProtectControlGroups": 232, "ProtectHome": 214,
    "ProtectKernelModules": 232, "ProtectKernelTunables": 232, "ProtectSystem": 214,
    "ReadWritePaths": 231, "Restart": 0, "RestartPreventExitStatus": 189, "RestartSec": 0,
    "RestrictAddressFamilies": 211, "RestrictNamespaces": 233, "RestrictRealtime": 231,
    "StateDirectory": 235, "StateDirectoryMode": 234, "SupplementaryGroups": 0,
    "SystemCallArchitectures": 209, "TimeoutStartSec": 188, "TimeoutStopSec": 188, "Type": 0,
    "UMask": 0, "User": 0, "WatchdogSec": 0, "WantedBy": 0,
}


def directives(unit):
    """The (name, value) pairs of a unit file, in order."""
    lines = unit.read_text().splitlines()
    return [tuple(line.split("=", 1)) for line in lines if re.match(r"[A-Za-z]+=", line)]


def run(command):
    """Runs a command; returns its exit status and what it wrote on stdout and stderr."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True
    )
    return done.returncode, done.stdout, done.stderr


def need(tool):
    """Skips the test where a systemd tool is not installed (Debian package: systemd)."""
    if shutil.which(tool) is None:
        pytest.skip("{} is not installed; apt-get install systemd".format(tool))


@pytest.fixture
def checkable(tmp_path):
    """The unit with its program replaced by one that exists here, as `verify` asks for it."""
    text = SERVICE.read_text()
    assert "ExecStart={} run ".format(PROGRAM) in text
    unit = tmp_path / SERVICE.name
    unit.write_text(text.replace(PROGRAM, shutil.which("true")))
    return unit


def test_systemd_accepts_the_unit_without_a_word(checkable):
    need("systemd-analyze")
    # `verify` exits 0 on an unknown key or a bad value: a line on stderr is the failure.
    status, _, complaints = run(["systemd-analyze", "verify", "--man=no", str(checkable)])
    assert (status, complaints) == (0, "")


@pytest.mark.parametrize("line", ["WatchdogSecs=2min", "Restart=sometimes", "CPUWeight=heavy"])
def test_the_check_sees_a_mistake(checkable, line):
    need("systemd-analyze")
    checkable.write_text(checkable.read_text().replace("[Install]", line + "\n[Install]"))
    _, _, complaints = run(["systemd-analyze", "verify", "--man=no", str(checkable)])
    assert line.split("=")[0] in complaints or line.split("=")[1] in complaints


def test_every_directive_exists_in_the_rovers_systemd():
    for name, _ in directives(SERVICE):
        assert name in SINCE, "{}: look up since when systemd has it, then add it".format(name)
        assert SINCE[name] <= ROVER_SYSTEMD, "{} came with {}".format(name, SINCE[name])


def test_nothing_hides_the_gpu_or_forbids_its_compiler():
    names = {name for name, _ in directives(SERVICE)}
    assert not names & {"PrivateDevices", "MemoryDenyWriteExecute", "DevicePolicy", "DeviceAllow"}
    assert ("SupplementaryGroups", "video") in directives(SERVICE)


def test_the_daemon_is_unprivileged_and_watched():
    values = dict(directives(SERVICE))
    assert values["User"] == values["Group"] == "jetson-cluster"
    assert values["CapabilityBoundingSet"] == ""
    assert values["Type"] == "notify" and "WatchdogSec" in values


def test_a_wrong_config_stops_it_and_a_lost_gpu_does_not():
    values = dict(directives(SERVICE))
    assert values["Restart"] == "on-failure"
    assert values["RestartPreventExitStatus"].split() == ["2"]
    assert values["StartLimitIntervalSec"] == "0"


def test_the_sandbox_leaves_little_exposed(checkable):
    need("systemd-analyze")
    status, table, complaints = run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(checkable)]
    )
    if "--offline" in complaints or "Unknown" in complaints:
        pytest.skip("this systemd cannot judge a unit that is not loaded")
    assert status == 0, complaints
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", table)
    print(exposure.group(0))
    # 3.8 with systemd 252, of 10; what is left is the GPU's device nodes and the filters 237 lacks.
    assert float(exposure.group(1)) < 4.5


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may create accounts, even below a folder")
def test_the_account_and_folders_are_made_as_the_unit_expects(tmp_path):
    need("systemd-sysusers")
    need("systemd-tmpfiles")
    (tmp_path / "etc").mkdir()
    account = str(FOLDER / "jetson-cluster.sysusers.conf")
    assert run(["systemd-sysusers", "--root=" + str(tmp_path), account])[0] == 0
    users = (tmp_path / "etc" / "passwd").read_text()
    groups = (tmp_path / "etc" / "group").read_text()
    assert re.search(r"^jetson-cluster:.*nologin$", users, re.MULTILINE)
    assert re.search(r"^video:.*:jetson-cluster$", groups, re.MULTILINE)

    folders = str(FOLDER / "jetson-cluster.tmpfiles.conf")
    status, _, complaints = run(
        ["systemd-tmpfiles", "--root=" + str(tmp_path), "--create", folders]
    )
    assert (status, complaints) == (0, "")
    owner = int(users.split("jetson-cluster:x:")[1].split(":")[0])
    # Others write into inbox and orders and may remove only what is theirs; from the outbox the
    # downlink software removes links to files of the camera's.
    for name, mode in (("inbox", 0o3770), ("orders", 0o3770), ("outbox", 0o2770)):
        place = (tmp_path / "var/spool/jetson-cluster" / name).stat()
        assert (place.st_mode & 0o7777, place.st_uid) == (mode, owner)
    state = (tmp_path / "var/lib/jetson-cluster").stat()
    assert (state.st_mode & 0o7777, state.st_uid) == (0o750, owner)
    assert (tmp_path / "etc/jetson-cluster").is_dir()


def test_the_example_config_uses_the_folders_that_the_unit_opens():
    values = dict(directives(SERVICE))
    config = yaml.safe_load((FOLDER / "config.yaml").read_text())
    assert config["state_dir"] == "/var/lib/" + values["StateDirectory"]
    made = (FOLDER / "jetson-cluster.tmpfiles.conf").read_text().split()
    outbox = re.search(r"^ +# .*folder made for it is (\S+);", (FOLDER / "config.yaml").read_text(),
                       re.MULTILINE).group(1)
    # One mount for all three: hard links lead from inbox to outbox, and images can be deleted.
    for place in (config["inbox"]["path"], config["orders"]["path"], outbox):
        assert place.startswith(values["ReadWritePaths"].lstrip("-") + "/")
        assert place in made
    assert config["state_dir"] in made
    assert "--config /etc/jetson-cluster/config.yaml" in values["ExecStart"]


def test_the_example_policy_names_every_key_with_its_default():
    content = yaml.safe_load((FOLDER / "policy.yaml").read_text())
    assert set(content) == set(policy.KEYS)
    for section, default in (("diversity", policy.Diversity()), ("ageing", policy.Ageing()),
                             ("quality", policy.Thresholds())):
        assert content[section] == dict(default._asdict())
    assert policy.load(str(FOLDER / "policy.yaml")) == policy.EMPTY


def test_what_the_example_policy_shows_as_comments_can_be_used(tmp_path):
    lines = (FOLDER / "policy.yaml").read_text().splitlines()
    shown = [line[1:] if line.startswith("#  ") else re.sub(r" (\{\}|\[\])$", "", line)
             if line in ("clusters: {}", "targets: []") else line for line in lines]
    (tmp_path / "policy.yaml").write_text("\n".join(shown))
    loaded = policy.load(str(tmp_path / "policy.yaml"))
    assert loaded.labels == {0: "dunes", 7: "layered rock"} and loaded.weights == {0: 0.5, 7: 3}
    assert [(target.name, target.like, target.weight) for target in loaded.targets] == [
        ("the vein of sol 343", "a1b2c3d4", 2)]


def test_the_example_policy_explains_every_key():
    explained = False
    for line in (FOLDER / "policy.yaml").read_text().splitlines():
        if line.strip().startswith("#"):
            explained = True
        elif not line.strip():
            explained = False
        elif not line.endswith(":"):
            assert explained, line


def test_the_nanos_environment_is_not_forced_on_other_computers():
    # OPENBLAS_CORETYPE=ARMV8 on x86 makes OpenBLAS take its slowest kernels.
    assert "OPENBLAS_CORETYPE" not in dict(directives(SERVICE)).get("Environment", "")
    assert ("EnvironmentFile", "-/etc/default/jetson-cluster") in directives(SERVICE)
    assert "OPENBLAS_CORETYPE=ARMV8" in (FOLDER / "jetson-cluster.env").read_text().splitlines()
