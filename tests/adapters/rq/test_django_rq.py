"""django-rq's pages, real ones, show our tasks by name and never with arguments."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from uuid import uuid4

import pytest
from dispatchers_rq import RQDispatcher

from dispatchers.testing import tasks

from .harness import forget, run_job

if find_spec("django_rq") is None:
    pytest.skip("needs django-rq", allow_module_level=True)

PAGES = """
import sys

import django
from django.conf import settings

url, queue, serializer, *jobs = sys.argv[1:]
settings.configure(
    SECRET_KEY="x",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF="__main__",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
        "django_rq",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    RQ_QUEUES={queue: {"URL": url, **({"SERIALIZER": serializer} if serializer else {})}},
)
django.setup()

from django.contrib import admin
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.urls import include, path

urlpatterns = [path("admin/", admin.site.urls), path("rq/", include("django_rq.urls"))]
call_command("migrate", verbosity=0)
client = Client()
client.force_login(User.objects.create_superuser("owner"))
for page in ("", "failed/", *(f"{job}/" for job in jobs)):
    answer = client.get(f"/rq/queues/0/{page}")
    assert answer.status_code == 200, (page, answer.status_code)
    print(f"== {page}\\n{answer.content.decode()}")
"""


@pytest.mark.parametrize(
    ("written", "read"), [("json", "rq.serializers.JSONSerializer"), ("pickle", "")]
)
def test_pages_show_the_task_and_no_argument(shared_redis: str, written: str, read: str) -> None:
    """C4: lists and job pages, of waiting and failed work, in an application's own format."""
    dispatcher = RQDispatcher(url=shared_redis, queue=f"pages-{uuid4().hex}", serializer=written)
    failing = tasks.fail.options(dispatcher=dispatcher, max_attempts=1)
    failed = failing.dispatch("/secret/journal", 9).raise_for_error()
    run_job(dispatcher, dispatcher.broker.default_queue)
    waiting = tasks.note.options(dispatcher=dispatcher).dispatch("/secret/journal", "secret-text")
    arguments = [shared_redis, dispatcher.broker.default_queue, read]
    ids = [str(waiting.task_id), str(failed.task_id)]

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PAGES, *arguments, *ids],
        capture_output=True,
        text=True,
        timeout=100,
    )
    forget(dispatcher.broker.client, dispatcher.broker.default_queue)
    dispatcher.close()

    assert done.returncode == 0, done.stderr
    listed, failed_list, job, failed_job = done.stdout.split("== ")[1:]
    for page in (listed, job):
        assert f"dispatchers_rq.run.{tasks.note.name}" in page
    for page in (failed_list, failed_job):
        assert f"dispatchers_rq.run.{tasks.fail.name}" in page
    assert "secret" not in done.stdout
