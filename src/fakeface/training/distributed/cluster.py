"""The machines of one training, as TF_CONFIG names them; no TensorFlow here."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

from fakeface.system.errors import UserError

_LONGEST_ANSWER = 3.0  # seconds
_BETWEEN_QUESTIONS = 0.2  # seconds
_EXAMPLE = '{"cluster": {"worker": ["host1:7000", "host2:7000"]}, "task": {"type": "worker", "index": 0}}'


@dataclass(frozen=True)
class Cluster:
    """Addresses (host:port) of at least two workers, the chief first, and the number of this one among them."""

    addresses: tuple[str, ...]
    number: int

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that keeps and writes what the training gives."""
        return self.number == 0

    @property
    def chief(self) -> str:
        """The address of the chief."""
        return self.addresses[0]

    @property
    def others(self) -> list[str]:
        """The addresses of all but this one."""
        return [address for number, address in enumerate(self.addresses) if number != self.number]

    def silent(self) -> list[str]:
        """Return the addresses of the others where nobody answers."""
        return [address for address in self.others if not _answers(address)]

    def wait_for_others(self) -> None:
        """Return once each of the others has answered, and answer them until then.

        TensorFlow waits too, but with Python's lock in its hand, so that no signal's handler runs meanwhile.

        Raises:
            UserError: the port of this machine cannot be opened.
        """
        own = self.addresses[self.number]
        try:
            listener = _listen(own, len(self.addresses))
        except (OSError, ValueError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError(
                f"The port of {own}, this machine in TF_CONFIG, cannot be opened ({reason}); end the program that has "
                "it, or name another port on every machine."
            ) from None
        with listener:
            waited_for = self.others
            while waited_for := [address for address in waited_for if not _answers(address)]:
                time.sleep(_BETWEEN_QUESTIONS)


def read_cluster(environ: Mapping[str, str]) -> Cluster | None:
    """Read TF_CONFIG; None without it, and where it names one machine only.

    Raises:
        UserError: it is no JSON, or names tasks that this training does not have.
    """
    text = environ.get("TF_CONFIG")
    if not text:
        return None
    try:
        content = json.loads(text)
        jobs = {str(name): [str(address) for address in addresses] for name, addresses in content["cluster"].items()}
        kind, index = str(content["task"]["type"]), int(content["task"]["index"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"TF_CONFIG is not understood; it looks like {_EXAMPLE}.") from None
    others = sorted(set(jobs) - {"chief", "worker"})
    if others:
        raise UserError(f"TF_CONFIG names tasks of the type '{others[0]}', and only chief and worker are known here.")
    addresses = (*jobs.get("chief", ()), *jobs.get("worker", ()))
    number = index + (len(jobs.get("chief", ())) if kind == "worker" else 0)
    if kind not in jobs or not 0 <= index < len(jobs[kind]):
        raise UserError(f"TF_CONFIG gives this process the task {kind} {index}, which its cluster does not have.")
    return Cluster(addresses, number) if len(addresses) > 1 else None


def _listen(address: str, most_callers: int) -> socket.socket:
    """Listen on the port of an address, at all of this machine's addresses as TensorFlow does."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    at_all = ("", int(address.rpartition(":")[2]))
    return socket.create_server(at_all, family=family, backlog=most_callers, dualstack_ipv6=both)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _LONGEST_ANSWER):
            return True
    except (OSError, ValueError):
        return False
