"""What people bring, converted by the command and applied as it came out: it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.e2e.workloads import Stage, eventually, stage
from tests.registry import Registry

pytestmark = pytest.mark.root

POD: Final = """\
apiVersion: v1
kind: ConfigMap
metadata: {{name: words}}
data: {{greeting: hello}}
---
apiVersion: v1
kind: Pod
metadata: {{name: greeter, labels: {{app: greeter}}}}
spec:
  restartPolicy: Never
  hostNetwork: true
  volumes:
    - {{name: shared, emptyDir: {{}}}}
    - {{name: words, configMap: {{name: words}}}}
  initContainers:
    - name: first
      image: {image}
      command: [sh, -c, "cat /words/greeting > /shared/said"]
      volumeMounts: [{{name: shared, mountPath: /shared}}, {{name: words, mountPath: /words}}]
  containers:
    - name: main
      image: {image}
      command: [sh, -c, "echo $(WHO) $(cat /shared/said) $AGAIN"]
      env:
        - {{name: WHO, value: everyone}}
        - {{name: AGAIN, valueFrom: {{configMapKeyRef: {{name: words, key: greeting}}}}}}
      volumeMounts: [{{name: shared, mountPath: /shared}}]
"""
COMPOSE: Final = """\
name: pair
x-all: &all {{image: "${{IMAGE}}", stop_grace_period: 1s}}
services:
  web:
    <<: *all
    network_mode: none
    command: httpd -f -p 127.0.0.1:8000 -h /srv
    volumes: ["./pages:/srv:ro"]
    healthcheck: {{test: "wget -q -O - http://127.0.0.1:8000/", interval: 1s}}
  asks:
    <<: *all
    network_mode: service:web
    restart: "no"
    depends_on: {{web: {{condition: service_healthy}}}}
    command: [wget, -q, -O, "-", "http://127.0.0.1:8000/"]
    env_file: asks.env
"""


def converted(st: Stage, way: str, text: str) -> Path:
    """The manifests of a file, beside it."""
    file = st.files / f"{way}-in.yaml"
    file.write_text(text)
    done = st.node.cli("convert", "--from", way, file, "--strict")
    assert done.returncode == 0, done.stdout + done.stderr
    out = st.files / f"{way}.yaml"
    out.write_text(done.stdout)
    return out


def logged(st: Stage, name: str) -> str:
    """What a container has written, once it has ended."""
    st.exited(name)
    return st.node.cli("logs", name).stdout.strip()


def test_a_pod_runs_with_what_lies_beside_it(registry: Registry) -> None:
    with stage(registry) as st:
        out = converted(st, "pod", POD.format(image=st.image()))
        done = st.node.cli("apply", "-f", out, "--timeout", "60s")
        assert done.returncode == 0, done.stdout + done.stderr
        assert eventually(lambda: logged(st, "greeter"), "the pod's words") == "everyone hello hello"


def test_a_compose_file_runs_with_its_services_together(registry: Registry) -> None:
    with stage(registry) as st:
        (st.files / "pages").mkdir()
        (st.files / "pages" / "index.html").write_text("a page\n")
        (st.files / "asks.env").write_text("A=1\n")
        (st.files / ".env").write_text(f"IMAGE={st.image()}\n")
        out = converted(st, "compose", COMPOSE.format())
        done = st.node.cli("apply", "-f", out, "--timeout", "60s")
        assert done.returncode == 0, done.stdout + done.stderr
        assert eventually(lambda: logged(st, "asks"), "the page") == "a page"
        assert st.status("container/web")["state"] == "Running"
