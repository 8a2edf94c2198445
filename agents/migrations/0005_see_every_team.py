"""Some people see what belongs to any team. Adds the permission; touches no row. Going back: nothing is lost."""

from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [("agents", "0004_teams_privacy_and_keeping")]

    operations = [
        migrations.AlterModelOptions(
            name="team",
            options={"ordering": ["name"], "permissions": [("see_every_team", "Can see what belongs to any team")]},
        ),
    ]
