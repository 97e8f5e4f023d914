"""Keys of a compose service for which there is no place here: a literal table, each with what to do."""

from __future__ import annotations

from typing import Final

from migrations.config.work import Outcome

_NOT_NEEDED: Final = "nothing to do: one agent runs it on one node"
_WEIGHTS: Final = "shares and weights are not set: write a limit (resources)"
_NAMESPACES: Final = "a sandbox has namespaces of its own"
_HOOKS: Final = "one command, as the container's user, is run (hooks.postStart, hooks.preStop)"
_BUILD: Final = "images are not built here: build it, and push or import it"
_NAMES: Final = "names of others are not known here: containers of one sandbox are at 127.0.0.1"

_INERT: Final = {
    "attach": "reconciler logs shows what it writes",
    "expose": "what listens is reached at the sandbox's address",
    "develop": "is for compose watch",
    "mem_reservation": _NOT_NEEDED,
    "provider": _NOT_NEEDED,
}
_DROPPED: Final = {
    "blkio_config": _WEIGHTS,
    "build": _BUILD,
    "cgroup": _NAMESPACES,
    "cgroup_parent": "control groups are the agent's own",
    "cpu_count": "write cpus",
    "cpu_percent": "write cpus",
    "cpu_period": "write cpus",
    "cpu_quota": "write cpus",
    "cpu_rt_period": _WEIGHTS,
    "cpu_rt_runtime": _WEIGHTS,
    "cpu_shares": _WEIGHTS,
    "cpuset": "is no list of processors, such as 0-2,4",
    "credential_spec": "this is Linux",
    "device_cgroup_rules": "name each device (security.devices)",
    "domainname": "write it whole under hostname",
    "extends": "give what docker compose config prints, where it is written out",
    "external_links": _NAMES,
    "extra_hosts": "/etc/hosts is made by the agent: mount a file of your own there (file: PATH)",
    "gpus": "name device nodes (security.devices)",
    "group_add": "a container has one group: user: UID:GID",
    "ipc": _NAMESPACES,
    "isolation": "this is Linux",
    "links": _NAMES,
    "mac_address": "an address is given by the network",
    "mem_swappiness": "swap is the node's matter",
    "memswap_limit": "swap is the node's matter",
    "oom_kill_disable": "what is over its limit ends",
    "oom_score_adj": "is not set",
    "pid": _NAMESPACES,
    "post_start": _HOOKS,
    "pre_stop": _HOOKS,
    "profiles": "it is always wanted: leave the document out where it is not",
    "shm_size": "mount a tmpfs of that size at /dev/shm",
    "storage_opt": "is the snapshotter's matter",
    "ulimits": "limits are the agent's own: say them in its unit (systemctl edit reconciler)",
    "userns_mode": _NAMESPACES,
    "use_api_socket": "there is no such socket",
    "uts": _NAMESPACES,
    "volumes_from": "name each volume under volumes",
}
MORE: Final = {
    **{key: (Outcome.INERT, why) for key, why in _INERT.items()},
    **{key: (Outcome.DROPPED, why) for key, why in _DROPPED.items()},
}
"""What becomes of each, and why."""
