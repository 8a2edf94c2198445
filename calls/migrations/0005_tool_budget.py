"""A model may send a bounded number of tool requests per call; each call counts its own. Adds a column. Going back: drops it."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('calls', '0004_final_lines_told_again'),
    ]

    operations = [
        migrations.AddField(
            model_name='callsession',
            name='tools_sent',
            field=models.PositiveIntegerField(default=0),
        ),
    ]
