"""The tables of the outbox: `dispatchers.outbox` has the same."""

from django.db import migrations, models

from dispatchers_django.models import ExactCharField, ExactTextField


class Migration(migrations.Migration):
    """Creates them."""

    dependencies = (("dispatchers", "0003_task_result"),)
    operations = (
        migrations.CreateModel(
            name="OutboxRow",
            fields=[
                ("seq", models.BigAutoField(primary_key=True, serialize=False)),
                ("request_id", ExactCharField(db_column="id", max_length=64)),
                ("alias", ExactCharField(max_length=255)),
                ("lane", ExactCharField(max_length=255)),
                ("task", ExactCharField(max_length=255)),
                ("deduplicate", models.BooleanField()),
                ("body", models.BinaryField()),
                ("tries", models.IntegerField()),
                ("created_at", models.FloatField()),
                ("why", ExactTextField(null=True)),
                ("dead", models.BooleanField()),
            ],
            options={
                "verbose_name": "outbox row",
                "db_table": "dispatchers_outbox",
                "ordering": ("seq",),
                "default_permissions": ("view",),
                "permissions": (("replay_outboxrow", "Can replay dead outbox rows"),),
                "indexes": [
                    models.Index(fields=["dead", "alias", "seq"], name="dispatchers_outbox_due")
                ],
                "constraints": [
                    models.UniqueConstraint(fields=["request_id"], name="dispatchers_outbox_id")
                ],
            },
        ),
        migrations.CreateModel(
            name="OutboxLeader",
            fields=[
                ("alias", ExactCharField(max_length=255, primary_key=True, serialize=False)),
                ("owner", ExactCharField(max_length=64)),
                ("beat", models.BigIntegerField()),
                ("lease", models.FloatField()),
            ],
            options={
                "db_table": "dispatchers_outbox_leader",
                "default_permissions": (),
            },
        ),
    )
