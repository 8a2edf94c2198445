"""Who may do what: the five roles, as groups with what `calls.roles` gives them; and each call gets its line's team.

Running it again changes nothing; groups of these names that exist keep what they have and get the rest. Going back: the roles
lose their permissions, and those nobody has are removed; the teams of calls stay, for the column goes with the migration before.
"""

from django.contrib.auth.management import create_permissions
from django.db import migrations
from django.db.models import OuterRef, Subquery

from calls import roles

APPS = ("auth", "agents", "calls")


def make_roles(apps, schema_editor):
    for label in APPS:  # Django makes permissions after all migrations, which is too late for us
        config = apps.get_app_config(label)
        config.models_module = True
        create_permissions(config, apps=apps, verbosity=0, using=schema_editor.connection.alias)
        config.models_module = None
    for role in roles.ROLES:
        roles.make(role, groups=apps.get_model("auth", "Group"), permissions=apps.get_model("auth", "Permission"))


def remove_roles(apps, schema_editor):
    groups = apps.get_model("auth", "Group").objects.filter(name__in=roles.ROLES)
    for group in groups:
        group.permissions.clear()
    groups.filter(user=None).delete()


def stamp_teams(apps, schema_editor):
    line = apps.get_model("agents", "PhoneLine").objects.filter(pk=OuterRef("line_id"))
    calls = apps.get_model("calls", "CallSession").objects
    calls.filter(team=None, line__team__isnull=False).update(team_id=Subquery(line.values("team_id")[:1]))


class Migration(migrations.Migration):

    dependencies = [
        ("calls", "0009_log_in_brakes_and_second_factors"),
        ("agents", "0006_trail_by_whom_and_what"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="callsession",
            options={
                "ordering": ["-started_at"],
                "permissions": [
                    ("read_transcript", "Can read what was said, and hear messages callers left"),
                    ("listen", "Can listen to recordings of calls"),
                    ("step_in", "Can act on calls: call back, process messages again"),
                    ("see_reports", "Can see reports"),
                    ("export_calls", "Can export calls"),
                    ("erase_person", "Can erase what is known of a caller"),
                ],
            },
        ),
        migrations.RunPython(make_roles, remove_roles),
        migrations.RunPython(stamp_teams, migrations.RunPython.noop),
    ]
