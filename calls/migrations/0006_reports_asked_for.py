"""A report that never came is asked for a few times; each session counts how often it was. Adds a column. Going back: drops it."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('calls', '0005_tool_budget'),
    ]

    operations = [
        migrations.AddField(
            model_name='vapisession',
            name='report_asks',
            field=models.PositiveSmallIntegerField(default=0),
        ),
    ]
