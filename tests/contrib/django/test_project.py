"""A project of its own process: start, checks, tasks, commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import django
import pytest

from dispatchers.testing.processes import family, kill, wait_until

pytestmark = pytest.mark.slow  # whole projects, processes by the dozen

SETTINGS = """
from pathlib import Path
DATA = Path(__file__).parent
INSTALLED_APPS = ["dispatchers_django", "shop"]
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": DATA / "db.sqlite3"}}}}
SECRET_KEY = "x" * 60 + "abcdefgh"
USE_TZ = True
DISPATCHERS = {dispatchers!r}
{more}
"""
TASKS = """
from pathlib import Path
from django.conf import settings
from dispatchers import task

@task(name="shop.write")
def write(text: str) -> None:
    with Path(settings.DATA, "written").open("a") as file:
        file.write(text)
"""
MANAGE = """
import os, sys
from django.core.management import execute_from_command_line
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_settings")
execute_from_command_line(sys.argv)
"""
WSGI = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "site_settings"
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
"""


class Project:
    """Its folder, and what it is asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "shop").mkdir()
        (folder / "shop" / "__init__.py").touch()
        (folder / "shop" / "tasks.py").write_text(TASKS)
        (folder / "manage.py").write_text(MANAGE)
        (folder / "site_wsgi.py").write_text(WSGI)

    def configure(self, more: str = "", **aliases: Any) -> None:
        text = SETTINGS.format(dispatchers=aliases, more=more)
        (self.folder / "site_settings.py").write_text(text)

    @property
    def environ(self) -> dict[str, str]:
        return {k: v for k, v in os.environ.items() if not k.startswith("DJANGO")}

    def run(self, *command: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == code, said
        return said

    def manage(self, *command: str, code: int = 0) -> str:
        return self.run("manage.py", *command, code=code)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def sqlite(project: Project) -> dict[str, Any]:
    return {"BACKEND": "sqlite", "OPTIONS": {"path": str(project.folder / "queue.sqlite3")}}


def test_a_server_does_not_start_with_what_cannot_work(project):
    """C12: system checks do not run there; every problem is told at once."""
    project.configure(default={"BACKEND": "inlin"}, mail={"BACKEND": "null", "OPTIONS": {"x": 1}})

    said = project.run("-c", "import site_wsgi", code=1)

    assert "2 problems:" in said
    assert "'inlin'" in said
    assert "targets.django.mail.x (settings.DISPATCHERS)" in said


def test_the_start_may_be_left_unchecked(project):
    """For a build step without the deployment's settings; the system check still says it."""
    project.configure("DISPATCHERS_CHECK_AT_START = False", default={"BACKEND": "inlin"})

    project.run("-c", "import site_wsgi")
    said = project.manage("check", code=1)

    assert "(dispatchers.E001)" in said


def test_check_deploy_says_more(project):
    """What is fine for development only."""
    project.configure(default={"BACKEND": "thread"})

    plain, deploy = project.manage("check"), project.manage("check", "--deploy")

    assert "dispatchers." not in plain
    assert "(dispatchers.W002)" in deploy


def test_work_goes_from_a_command_to_a_worker_s_processes(project):
    """`tasks.py` is found in each application; the worker's children set Django up."""
    project.configure(default=sqlite(project))
    code = "from shop.tasks import write; print(write.dispatch('x').status.value)"

    said = project.manage("shell", "-c", code)
    worked = project.manage("dispatchers_worker", "--drain", "--concurrency", "1")

    assert "accepted" in said
    assert (project.folder / "written").read_text() == "x"
    assert "target 'django'" in worked


def test_the_worker_remembers_in_the_database(project):
    """C10: a key that was done is not done again, whatever process looks."""
    options = {
        **sqlite(project)["OPTIONS"],
        "idempotency": "dispatchers_django.stores:IdempotencyStore",
    }
    project.configure(default={"BACKEND": "sqlite", "OPTIONS": options})
    project.manage("migrate")
    code = "from shop.tasks import write; write.options(idempotency_key='k').dispatch('x')"

    for _ in range(2):
        project.manage("shell", "-c", code)
        project.manage("dispatchers_worker", "--drain", "--concurrency", "1")

    assert (project.folder / "written").read_text() == "x"


def test_the_doctor_says_what_is_in_order_and_what_is_not(project):
    """With the program's own exit codes, and Django's own options."""
    project.configure(default=sqlite(project))

    good = project.manage("dispatchers_doctor", "--settings", "site_settings", "--contact")
    project.configure(
        "DISPATCHERS_CHECK_AT_START = False", default={"BACKEND": "null", "OPTIONS": {"x": 1}}
    )
    bad = project.manage("dispatchers_doctor", code=1)

    assert "no errors" in good
    assert "1 error" in bad
    assert "settings.DISPATCHERS" in bad


def test_commands_can_be_called_from_code(project):
    """A command that finds something ends with its exit code."""
    project.configure(default=sqlite(project))
    code = "from django.core.management import call_command\ncall_command('dispatchers_doctor')\n"

    assert "no errors" in project.manage("shell", "-c", code)


@pytest.mark.parametrize("words", [("dispatchers", "dead"), ("dispatchers_dead",)])
def test_every_command_runs_by_manage_py(project, words):
    """`manage.py dispatchers COMMAND`: a Django user's dead letters are listed."""
    project.configure(default=sqlite(project))

    assert "no dead letters" in project.manage(*words, "list")


def test_other_commands_run_by_manage_py(project):
    """Those without a name of their own under Django."""
    project.configure(default=sqlite(project))

    dispatched = project.manage("dispatchers", "dispatch", "shop.write", "text=x")
    project.manage("dispatchers", "worker", "--drain", "--concurrency", "1")

    assert "accepted" in dispatched
    assert (project.folder / "written").read_text() == "x"


def test_the_plain_program_needs_one_line(project):
    """`dispatchers worker` with `dispatchers_django.setup` among the modules."""
    (project.folder / "dispatchers.toml").write_text(
        'tasks = ["dispatchers_django.setup"]\ntarget = "one"\n'
        '[targets.one]\ndefault = { backend = "sqlite", path = "queue.sqlite3" }\n'
    )
    project.configure()
    text = (project.folder / "site_settings.py").read_text().replace("DISPATCHERS = {}", "")
    (project.folder / "site_settings.py").write_text(text)

    project.manage("shell", "-c", "from shop.tasks import write; write.dispatch('x')")
    program = (
        "import os, sys; os.environ['DJANGO_SETTINGS_MODULE'] = 'site_settings'\n"
        "from dispatchers.cli import main\n"
        "sys.exit(main(['worker', '--drain', '--concurrency', '1']))"
    )
    project.run("-c", program)

    assert (project.folder / "written").read_text() == "x"


FLOWS = """
from dispatchers.workflows import Signal, workflow

approval = Signal("approval", bool)

@workflow(name="shop.wait")
async def wait(order: int) -> bool:
    return await approval.receive()
"""


def test_executions_by_manage_py(project):
    """D18: each of the nine actions, on executions that a worker of the project has begun."""
    (project.folder / "shop" / "tasks.py").write_text(TASKS + FLOWS)
    project.configure(default=sqlite(project))

    def executions(*words: str) -> str:
        return project.manage("dispatchers", "executions", *words)

    def work() -> None:
        project.manage("dispatchers_worker", "--drain", "--concurrency", "1")

    for key in ("a", "b", "c"):
        project.manage("dispatchers", "dispatch", "shop.wait", "order=7", "--key", key)
    work()
    listed, shown, told = executions("list"), executions("show", "a"), executions("journal", "a")
    executions("cancel", "a", "--reason", "he called")
    executions("terminate", "b")
    executions("terminate", "c")
    executions("resume", "b")
    work()
    executions("export", "b", "--out", "histories")
    swept, forgotten = executions("sweep"), executions("forget", "--older-than", "0s", "--yes")

    assert [f"shop.wait/{key}" in listed for key in ("a", "b", "c")] == [True, True, True]
    assert "running" in shown
    assert "waits for a signal" in told
    assert [path.suffix for path in (project.folder / "histories").iterdir()] == [".json"]
    assert swept
    assert forgotten
    left = executions("list")
    assert [f"shop.wait/{key}" in left for key in ("a", "b", "c")] == [False, True, False]


BUILT_IN = django.VERSION >= (6,)
DJANGO_TASKS = """
import threading
from pathlib import Path
from django.conf import settings
from {api} import task

@task(takes_context=True)
def hang_once(context, number):
    if context.attempt == 1:
        Path(settings.DATA, "begun").touch()
        threading.Event().wait()
    return number
"""
BACKEND = """
TASKS = {"default": {
    "BACKEND": "dispatchers_django.tasks.DispatcherBackend", "OPTIONS": {"lease": 1}
}}
"""
SHOW = """
import json
from shop.tasks import hang_once
result = hang_once.get_result(%r)
value = result.return_value if result.status == "SUCCESSFUL" else None
print("shown", json.dumps([result.status, result.attempts, value]))
"""


def test_a_killed_worker_leaves_no_result_running(project):
    """The row says READY when its lease is over, and SUCCESSFUL after the next worker's run."""
    api = "django.tasks" if BUILT_IN else "django_tasks"
    pytest.importorskip(api, reason='needs pip install "dispatchers[django-tasks]"')
    (project.folder / "shop" / "tasks.py").write_text(DJANGO_TASKS.format(api=api))
    queue = {"BACKEND": "sqlite", "OPTIONS": {**sqlite(project)["OPTIONS"], "lease": 1}}
    project.configure(BACKEND, default=queue)
    project.manage("migrate")
    enqueue = "from shop.tasks import hang_once; print('id', hang_once.enqueue(7).id)"
    result = project.manage("shell", "-c", enqueue).split("id ")[-1].split()[0]

    def shown() -> Any:
        return json.loads(project.manage("shell", "-c", SHOW % result).split("shown ")[-1])

    worker = subprocess.Popen(
        [sys.executable, "manage.py", "dispatchers_worker", "--concurrency", "1"],
        cwd=project.folder,
        env=project.environ,
    )
    try:
        wait_until((project.folder / "begun").exists, "the task did not begin")
    finally:
        kill(family(worker.pid))
        worker.wait()
    wait_until(lambda: shown() == ["READY", 1, None], "the killed run was not noticed")
    project.manage("dispatchers_worker", "--drain", "--concurrency", "1")

    assert shown() == ["SUCCESSFUL", 2, 7]


def test_tasks_may_be_declared_before_the_applications_are_ready(project):
    """A model's module imports them; what the dispatcher can do is known by then."""
    api = "django.tasks" if BUILT_IN else "django_tasks"
    pytest.importorskip(api, reason='needs pip install "dispatchers[django-tasks]"')
    text = f"from {api} import task\n\n@task(priority=5)\ndef work():\n    pass\n"
    (project.folder / "shop" / "tasks.py").write_text(text)
    (project.folder / "shop" / "models.py").write_text("from shop import tasks")

    project.configure(BACKEND, default=sqlite(project))
    project.manage("check")
    project.configure(BACKEND, default={"BACKEND": "inline"})
    said = project.manage("check", code=1)

    assert "does not support setting priority" in said
