"""What operations want at this moment: the policy file, and what orders amended of it since.

In: the uplinked policy and the catalog's amendments. Out: the policy in force. A newly uplinked
file is the last word: the amendments made before it are dropped, and the account says so.
"""

import logging
import os
import time
from typing import Callable

from jetson_cluster import policy
from jetson_cluster.catalog import Catalog
from jetson_cluster.config import Config
from jetson_cluster.policy import EMPTY, Policy
from jetson_cluster.uplinked import Uplinked, in_force

log = logging.getLogger(__name__)

KEPT_NAME = "policy.yaml"  # of the last good one, in config.kept_path


def uplinked_policy(config: Config, monotonic: Callable[[], float] = time.monotonic) -> Uplinked:
    """The policy file, to be followed."""
    return Uplinked("policy", config.policy, os.path.join(config.kept_path, KEPT_NAME), policy.load,
                    monotonic)


def policy_of(config: Config, catalog: Catalog) -> Policy:
    """The policy in force, for programs beside the daemon. Raises UserError."""
    return in_force(config.policy, os.path.join(config.kept_path, KEPT_NAME), policy.load).amended(
        catalog.amendments())


class Wishes:
    """Keeps `policy` true to the file and the orders."""

    def __init__(self, file: Uplinked, catalog: Catalog, now: Callable[[], str]):
        """`file` has been started."""
        self._file, self._catalog, self._now = file, catalog, now
        self._drop_if_new()
        self.policy = self.amended()

    @property
    def path(self) -> str:
        return self._file.path

    @property
    def error(self) -> str:
        """What is wrong with the file as it stands, "" if nothing."""
        return self._file.error

    def look(self) -> bool:
        """Whether the policy in force is another one now. Raises sqlite3.Error; then ask again."""
        if self._file.poll():
            log.info("PolicyTaken: %s", self._file.path)
        self._drop_if_new()
        before, self.policy = self.policy, self.amended()
        return _differ(before, self.policy)

    def amended(self) -> Policy:
        """The policy as amended at this moment, which `policy` is from the next look on."""
        return (self._file.value or EMPTY).amended(self._catalog.amendments())

    def _drop_if_new(self) -> None:
        """Drop the amendments to a policy that is not the one in force any more."""
        identity = self._file.digest
        before = self._catalog.meta("amended_policy")
        if before == identity:
            return
        with self._catalog.together():
            dropped = self._catalog.drop_amendments() if before is not None else 0
            if dropped:
                self._catalog.audit(self._now(), "policy file", None, "drop amendments",
                                    self._file.path, "done", "%d of them" % dropped)
            self._catalog.remember("amended_policy", identity)
        if dropped:
            log.warning("AmendmentsDropped: %d; a new policy file is in force, %s", dropped,
                        self._file.path)


def _differ(one: Policy, other: Policy) -> bool:
    """Whether two policies say different things."""
    return _in_full(one) != _in_full(other)


def _in_full(said: Policy) -> Policy:
    """The same with embeddings that can be compared."""
    return said._replace(targets=tuple(
        target if target.embedding is None else
        target._replace(embedding=target.embedding.tobytes()) for target in said.targets))
