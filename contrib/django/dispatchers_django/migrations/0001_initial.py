"""The idempotency store's table."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Creates it."""

    initial = True
    dependencies = ()
    operations = (
        migrations.CreateModel(
            name="Claim",
            fields=[
                ("key", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("task", models.CharField(max_length=255)),
                ("owner", models.CharField(max_length=64)),
                ("beat", models.BigIntegerField(default=0)),
                ("ttl", models.FloatField()),
                ("changed_at", models.DateTimeField(auto_now=True)),
                ("done_until", models.DateTimeField(blank=True, db_index=True, null=True)),
            ],
            options={
                "verbose_name": "idempotency claim",
                "ordering": ("-changed_at",),
            },
        ),
    )
