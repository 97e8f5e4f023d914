"""One service of a compose file as a Container.

Rules of this file: what compose does when nothing is said (no restart, health asked each 30 s) is written out where
ours does something else. A key of one image, one mount or one port that cannot be here is dropped alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Final

from core.values import dataclass
from migrations.config.work import Outcome
from migrations.manifests.amounts import docker_size, duration
from migrations.manifests.compose_confinement import Confinement
from migrations.manifests.compose_files import environment_file
from migrations.manifests.compose_mounts import Mounts
from migrations.manifests.compose_rules import MORE
from migrations.manifests.compose_stage import Part
from migrations.manifests.compose_text import command
from migrations.manifests.given import Given, Rule, follow
from migrations.manifests.making import absolute, is_env_name, is_signal, is_user, pairs

_CONDITIONS: Final = {
    "service_started": "Started",
    "service_healthy": "Ready",
    "service_completed_successfully": "Succeeded",
}
_POLICIES: Final = {
    "no": ("Never", ""),
    "always": ("Always", ""),
    "unless-stopped": ("Always", "reconciler stop stops it until start"),
    "on-failure": ("OnFailure", ""),
    "none": ("Never", ""),
    "any": ("Always", ""),
}
_EVERY: Final = "30s"


@dataclass(slots=True)
class Service(Part):
    """One service on its way; `made` is its spec."""

    made: dict[str, Any] = field(default_factory=dict)

    def spec(self) -> dict[str, Any]:
        """The spec of its Container. Raises `BadDocument`."""
        made, given = self.made, self.given
        made["image"] = self._image()
        made["sandbox"] = self.stage.names.sandboxes[self.key]
        self._commands()
        made["env"] = self._environment()
        made["mounts"] = Mounts(self.stage, self.key, given).read()
        confined = Confinement(self.stage, self.key, given)
        made["resources"] = confined.resources()
        made["security"] = confined.security()
        self._restart()
        self._health()
        self._depends()
        self._stop_and_log()
        self._hooks()
        follow(self.account, given, {**self._rules(), **MORE})
        extensions = {key: (Outcome.INERT, "is for other programs") for key in given.mapping() if key.startswith("x-")}
        follow(self.account, given, extensions)
        return made

    def _image(self) -> str:
        image, platform, policy = (self.given.get(key) for key in ("image", "platform", "pull_policy"))
        assert image is not None  # who has none is no service here
        more: dict[str, Any] = {}
        if platform is not None:
            more["platform"] = platform.string()
            self.account.translated(platform, f"{self.where} image", "an Image says it")
        if policy is not None and policy.string() in ("always", "never", "daily", "weekly"):
            more["pullPolicy"] = "Never" if policy.string() == "never" else "Always"
            self.account.translated(policy, f"{self.where} image", "an Image says it")
        elif policy is not None and policy.string() in ("missing", "if_not_present"):
            self.account.default(policy)
        self.account.dropped(policy, "images are pulled, or imported: reconciler image import")
        said = self.stage.made.image(image.string(), more)
        if more:
            self.account.translated(image, f"image/{said} ref", "an Image of its own, as more is said of it")
        self.account.moved(image, f"{self.where} image")
        return said

    def _commands(self) -> None:
        for theirs, ours in (("entrypoint", "command"), ("command", "args")):
            if (given := self.given.get(theirs)) is None:
                continue
            line = command(self.account, given)
            if line:
                self.made[ours] = line
                if given.items is None:
                    self.account.translated(given, f"{self.where} {ours}", "taken apart as a shell does it")
                self.account.moved(given, f"{self.where} {ours}")
            else:
                self.account.dropped(given, f"an empty one is the image's own here: write {ours}")

    def _environment(self) -> list[dict[str, str]]:
        found: dict[str, str] = {}
        files = self.given.get("env_file")
        for one in _each(files):
            found |= environment_file(self.stage.settings, one)
            self.account.translated(one, f"{self.where} env", "what it holds now stands here")
        given = self.given.get("environment")
        for name, value, place in pairs(given):
            if not is_env_name(name):
                raise place.bad("is not the name of a variable", "Write NAME=VALUE.")
            bare = place.null or (given is not None and given.items is not None and "=" not in place.string())
            if not bare:
                found[name] = value
                self.account.moved(place, f"{self.where} env")
            elif (known := self.stage.settings.variables.get(name)) is not None:
                found[name] = known
                self.account.translated(place, f"{self.where} env", "what it is now is put in")
            else:
                self.account.say(place, Outcome.INERT, "is not set, here or there")
        return [{"name": name, "value": value} for name, value in found.items()]

    # ---------------------------------------------------------------------------------------------- how it is run

    def _restart(self) -> None:
        given = self.given.get("restart")
        deployed = self.given.get("deploy", "restart_policy", "condition")
        chosen = deployed or given
        word, _, count = chosen.string().partition(":") if chosen is not None else ("no", "", "")
        word = "no" if word == "false" else word
        if word not in _POLICIES:
            assert chosen is not None
            raise chosen.bad("is no restart policy", "Write no, always, on-failure or unless-stopped.")
        policy, how = _POLICIES[word]
        self.made["restart"] = {"policy": policy}
        if count:
            self.account.say(
                chosen,
                Outcome.DROPPED,
                "tries are not counted: restart.maxDelay caps the back-off",
                f"{self.where} restart.policy",
            )
        if how:
            self.account.translated(chosen, f"{self.where} restart.policy", how)
        self.account.moved(chosen, f"{self.where} restart.policy")
        self.account.inert(given, "deploy.restart_policy wins")

    def _health(self) -> None:
        health = self.given.get("healthcheck")
        if health is None:
            return
        off, test = health.get("disable"), health.get("test")
        line = [] if test is None else _test(test)
        if (off is not None and off.truth()) or not line:
            self.account.default(health, "nothing is asked where no probe is")
            return
        probe: dict[str, Any] = {"exec": line, "every": _EVERY, "timeout": _EVERY}
        self.account.translated(test, f"{self.where} probes.readiness", "not healthy is not Ready")
        for theirs, ours in (("interval", "every"), ("timeout", "timeout")):
            if (given := health.get(theirs)) is not None:
                text = duration(given.string())
                if text in ("", "0s"):
                    raise given.bad("is no duration", "Write one such as 30s.")
                probe[ours] = text
                self.account.moved(given, f"{self.where} probes.readiness.{ours}")
        if (given := health.get("retries")) is not None:
            probe["failures"] = min(max(given.number(), 1), 1000)
            self.account.moved(given, f"{self.where} probes.readiness.failures")
        self.account.inert(health.get("start_period"), "until it says yes, it is only not Ready")
        self.account.inert(health.get("start_interval"), "it is asked at the same interval from the start")
        self.account.default(off)
        self.made["probes"] = {"readiness": probe}

    def _depends(self) -> None:
        given = self.given.get("depends_on")
        if given is None:
            return
        found = []
        for key, one in [(text.string(), text) for text in given.items] if given.items else given.mapping().items():
            name = self.stage.names.containers.get(key)
            wanted = one.get("condition") if given.items is None else None
            if name is None:
                self.account.dropped(one, f"there is no container of {key}: it has no image, or is not in this file")
                continue
            condition = _CONDITIONS.get(wanted.string()) if wanted is not None else "Started"
            if condition is None or key == self.key:
                assert wanted is not None or key == self.key
                raise (wanted or one).bad("cannot be waited for", f"Write {', '.join(_CONDITIONS)}.")
            found.append({"container": name, "condition": condition})
            if given.items is None:
                self.account.dropped(one.get("restart"), "orders first starts only: say restart for each")
                self.account.default(one.get("required"))
            self.account.moved(wanted if one.fields else one, f"{self.where} dependsOn")
        self.made["dependsOn"] = list({one["container"]: one for one in found}.values())

    def _stop_and_log(self) -> None:
        stop: dict[str, Any] = {}
        if (given := self.given.get("stop_signal")) is not None:
            if not is_signal(given.string()):
                raise given.bad("is no signal", "Write one such as SIGTERM.")
            stop["signal"] = given.string().removeprefix("SIG")
            self.account.moved(given, f"{self.where} stop.signal")
        if (given := self.given.get("stop_grace_period")) is not None:
            if not (text := duration(given.string())):
                raise given.bad("is no duration", "Write one such as 10s.")
            stop["grace"] = text
            self.account.moved(given, f"{self.where} stop.grace")
        self.made["stop"] = stop
        driver, options = self.given.get("logging", "driver"), self.given.get("logging", "options")
        log: dict[str, Any] = {}
        own = driver is None or driver.string() in ("json-file", "local")
        size = options.get("max-size") if options is not None and own else None
        if size is not None and (text := docker_size(size.string())):
            log["maxSize"] = text
            self.account.moved(size, f"{self.where} log.maxSize")
        files = options.get("max-file") if options is not None and own else None
        if files is not None and 1 <= files.number() <= 100:
            log["files"] = files.number()
            self.account.moved(files, f"{self.where} log.files")
        self.made["log"] = log
        if own:
            self.account.default(driver, "logs are files that are rotated")
        self.account.dropped(self.given.get("logging"), "logs are files here: have a collector read them")

    def _hooks(self) -> None:
        """Of each end of its life one command, as its own user."""
        for theirs, ours in (("post_start", "postStart"), ("pre_stop", "preStop")):
            given = self.given.get(theirs)
            hooks = given.listing() if given is not None else []
            line = hooks[0].get("command") if len(hooks) == 1 and "user" not in hooks[0].mapping() else None
            if line is not None and (words := command(self.account, line)):
                self.made.setdefault("hooks", {})[ours] = {"exec": words}
                self.account.moved(line, f"{self.where} hooks.{ours}")

    def _rules(self) -> Mapping[str, Rule]:
        """Keys that stand alone."""

        def switch(ours: str) -> Rule:
            def rule(given: Given) -> None:
                self.made[ours] = given.truth()
                self.account.moved(given, f"{self.where} {ours}")

            return rule

        return {"tty": switch("tty"), "stdin_open": switch("stdin"), "init": switch("init"), "user": self._user,
                "working_dir": self._directory, "container_name": self._called}  # fmt: skip

    def _user(self, given: Given) -> None:
        if not is_user(given.string()):
            raise given.bad("is not a user", "Write user or user:group.")
        self.made["user"] = given.string()
        self.account.moved(given, f"{self.where} user")

    def _directory(self, given: Given) -> None:
        if absolute(given.string()):
            self.made["workingDir"] = given.string()
            self.account.moved(given, f"{self.where} workingDir")
        else:
            self.account.dropped(given, "is no absolute path: the image's is used")

    def _called(self, given: Given) -> None:
        self.account.translated(given, self.where, "a container is called as its service")


def _test(given: Given) -> list[str]:
    """The command of a health check; empty where nothing is asked."""
    if given.items is None:
        return ["/bin/sh", "-c", given.string()]
    first, *rest = [one.string() for one in given.items] or [""]
    if first == "CMD-SHELL":
        return ["/bin/sh", "-c", " ".join(rest)]
    return rest if first == "CMD" else []


def _each(given: Given | None) -> list[Given]:
    """The items of a list; what is no list is its only one."""
    if given is None:
        return []
    return given.items if given.items is not None else [given]
