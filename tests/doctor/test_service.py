"""What the doctor says of the service, over the project's own unit file."""

import os

import pytest

from jetson_cluster import config as settings
from jetson_cluster.doctor import service as probes

PATH = "/etc/systemd/system/jetson-cluster.service"


@pytest.fixture
def installed(computer, root):
    computer.nano()
    computer.file(PATH, (root / "systemd" / "jetson-cluster.service").read_text())
    computer.file("/etc/passwd", "jetson-cluster:x:77002:77003::/:/bin/false\n")
    return computer


def says(unit_file="enabled", active="active", sub="running", restarts="0", reload="no"):
    return "printf 'UnitFileState=%s\\nActiveState=%s\\nSubState=%s\\nNRestarts=%s\\n" \
        "NeedDaemonReload=%s\\n'" % (unit_file, active, sub, restarts, reload)


def test_the_daemon_runs_as_the_account_of_the_unit(installed):
    case = installed.case(settings.DEFAULT_PATH)
    assert case.serves and probes.user(case).found == "jetson-cluster, as %s says" % PATH
    assert case.person.user == 77002 and {77003, 77044} <= case.person.groups  # its own and video


def test_another_config_is_that_of_whoever_looks(installed, config):
    case = installed.case(config)
    assert not case.serves and case.person.user == os.geteuid()


def test_an_account_that_is_missing_is_bad(installed):
    installed.file("/etc/passwd", "root:x:0:0::/:/bin/sh\n")
    finding = probes.user(installed.case(settings.DEFAULT_PATH))
    assert finding.level == "bad" and finding.mend == "sudo systemd-sysusers"


@pytest.mark.parametrize("state, level, mend", [
    ({}, "ok", ""), ({"restarts": "3"}, "ok", ""),
    ({"sub": "start", "active": "activating"}, "ok", ""),
    ({"unit_file": "disabled"}, "warn", "systemctl enable --now"),
    ({"active": "failed", "sub": "failed"}, "warn", "journalctl"),
    ({"active": "activating", "sub": "auto-restart"}, "warn", "journalctl"),
    ({"active": "inactive", "sub": "dead"}, "warn", "systemctl start"),
    ({"reload": "yes"}, "warn", "daemon-reload")])
def test_a_service_that_would_not_start_or_stay_is_told(installed, state, level, mend):
    installed.program("systemctl", says(**state))
    finding = probes.service(installed.case(settings.DEFAULT_PATH))
    assert finding.level == level and mend in finding.mend
    assert ("again 3 times" in finding.found) == ("restarts" in state)


def test_a_unit_without_a_systemd_to_ask_is_told(installed):
    assert probes.service(installed.case("x")).level == "skip"
    installed.program("systemctl", "echo System has not been booted with systemd >&2; exit 1")
    assert "cannot be asked" in probes.service(installed.case("x")).found


def test_a_rover_without_the_service_is_told_and_others_need_none(computer, config):
    assert probes.service(computer.case(config)).level == "skip"
    computer.nano()
    finding = probes.service(computer.case(config))
    assert finding.level == "warn" and finding.mend == "sudo tools/install-on-jetson"
    computer.file("/.dockerenv", "")
    assert "container" in probes.service(computer.case(config)).found
