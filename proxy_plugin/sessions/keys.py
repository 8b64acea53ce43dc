"""Names of all keys in Redis. The one place that knows them.

    pp:1:{<tag>}:<slot>:<part>     a session; slot is "s", or the n of a `<family>.<n>` session
    pp:1:{<tag>}:<part>[:…]        what the sessions of one family share
    pp:1:{<kept>}:kept             a path by the provider's id of its last response or of its conversation
    pp:1:{<tenant>}:sessions       index: session id -> last activity
    pp:1:{<tenant>}:aliases        alias -> session id
    pp:1:tenants                   index: tenant -> last activity
    pp:1:{<tenant>}:interrupted    index: session id -> when a worker was lost that answered it
    pp:1:{<tenant>}:fence          the highest fence that maintenance of the tenant's index was done with
    pp:1:{<worker>}:calls          sessions with a call under way on this worker
    pp:1:workers                   worker -> end of its lease
    pp:1:{pp:1:workers}:recovery   last_start, last_clean_stop, last_unclean_stop, unclean_stops
    pp:1:{<name>}:lock, :fence     a lock for maintenance, and the last fence given out with it

All keys of a session, and of a family, share the hash tag and so a cluster slot. Everything between the
colons is a hash, a number or a word of this file: no text of a user. "1" is the layout's version.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

from proxy_plugin.sessions.identity import Address

PREFIX = "pp:1:"
TENANTS = PREFIX + "tenants"
WORKERS = PREFIX + "workers"
RECOVERY = f"{PREFIX}{{{WORKERS}}}:recovery"
"""Beside the workers' leases, in their slot: what is known of starts and stops."""


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """The keys of one session.

    meta       hash    created, last, cur (current branch), head, messages and bytes of the path to it,
                       agent, title, the numbers of branches, subtasks and requests so far; back: the head
                       was set back and nothing new was said since; layout: a number above 1 where a newer
                       version laid its nodes or bodies out otherwise: older ones leave the session as it is
    nodes      hash    node id -> head of the node (see tree.py)
    bodies     hash    node id -> body of the node
    leads      hash    lead id -> leading system and developer messages
    branches   hash    branch name -> head of the branch
    tips       zset    node id + "/" + name of a branch whose newest node it is, all of score 0: read by prefix
    subtasks   hash    field of a subtask -> how it began; the field + ":end" -> how it ended
    snapshots  zset    snapshot id by when it expires, +inf for a pinned one
    marks      zset    node id + explicit subtask id by when it was set
    agents     list    switches of the agent (JSON), oldest first
    links      set     the family's `first` and `token` keys that lead to this session
    kept       set     what leads to this session by ids of the provider's, see `kept`
    log        list    node ids in the order in which they were stored, so parents before children
    named      hash    snapshot id -> what it names (JSON)
    profile    hash    description, metadata (JSON object) and aliases (JSON list) that a user gave
    flights    hash    token of a request whose call is under way -> its marker, see commit.lua
    requests   hash    what came and what left, request by request, see requests.py
    tomb       string  there for a minute after a deletion
    """

    meta: str
    nodes: str
    bodies: str
    leads: str
    branches: str
    tips: str
    subtasks: str
    snapshots: str
    marks: str
    agents: str
    links: str
    kept: str
    log: str
    named: str
    profile: str
    flights: str
    requests: str
    tomb: str

    @property
    def data(self) -> tuple[str, ...]:
        """All of them that hold data, in the order in which the scripts take them."""
        return (
            self.meta, self.nodes, self.bodies, self.leads, self.branches, self.tips,
            self.subtasks, self.snapshots, self.marks, self.agents, self.links, self.kept, self.log,
            self.named, self.profile, self.flights, self.requests,
        )  # fmt: skip


@lru_cache(maxsize=10_000)
def of_session(address: Address) -> SessionKeys:
    """Needs an address whose session id is known."""
    base = f"{PREFIX}{{{address.tag}}}:{address.number or 's'}:"
    return SessionKeys(*(base + part for part in SessionKeys.__slots__))


def staged(address: Address, token: str) -> SessionKeys:
    """Where an import is brought in before it takes the session's place. `tomb` is the import's own mark."""
    base = f"{PREFIX}{{{address.tag}}}:{address.number or 's'}:import-{token}:"
    return SessionKeys(*(base + part for part in SessionKeys.__slots__))


def counter(address: Address) -> str:
    """The last n given out in a family."""
    return f"{PREFIX}{{{address.tag}}}:count"


def first(address: Address, reply: str) -> str:
    """Leads from a conversation's first reply to its n."""
    return f"{PREFIX}{{{address.tag}}}:first:{reply}"


def token(address: Address, value: str) -> str:
    """Leads from the request that opened a conversation to its n."""
    return f"{PREFIX}{{{address.tag}}}:token:{value}"


def kept(under: str) -> str:
    """Leads from an id of the provider's (`identity.kept_under`) to the node to go on from, a JSON object. It
    stands in a slot of its own: a request that brings such an id need not name a session."""
    return f"{PREFIX}{{{under}}}:kept"


def index(tenant: str) -> str:
    return f"{PREFIX}{{{tenant}}}:sessions"


def interrupted(tenant: str) -> str:
    return f"{PREFIX}{{{tenant}}}:interrupted"


def calls_of(worker: str) -> str:
    return f"{PREFIX}{{{worker}}}:calls"


def lock(name: str) -> str:
    return f"{PREFIX}{{{name}}}:lock"


def fence(name: str) -> str:
    """The last fence of a lock; in the slot of a tenant's index, the highest one that it was maintained with."""
    return f"{PREFIX}{{{name}}}:fence"


def aliases(tenant: str) -> str:
    return f"{PREFIX}{{{tenant}}}:aliases"


def subtask_field(subtask_id: str) -> str:
    """Field of an explicit subtask: its id is the client's text, so only its hash is used."""
    return "x-" + sha256(subtask_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
