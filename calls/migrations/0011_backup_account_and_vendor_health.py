"""At which account at Vapi each session was made (so far: the main one), and how each account has taken our calls lately.

Adds a column with a default and a table of two rows at most. Going back: both are dropped; what runs at the backup account
then ends by itself.
"""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('calls', '0010_roles_and_teams_of_calls'),
    ]

    operations = [
        migrations.CreateModel(
            name='VendorHealth',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('account', models.CharField(choices=[('main', 'Main account'), ('backup', 'Backup account')], max_length=6, unique=True)),
                ('version', models.PositiveBigIntegerField(default=0)),
                ('failures', models.JSONField(default=list)),
                ('opened_at', models.DateTimeField(blank=True, null=True)),
                ('why', models.CharField(blank=True, max_length=8)),
                ('probe_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'default_permissions': (),
            },
        ),
        migrations.AddField(
            model_name='vapisession',
            name='account',
            field=models.CharField(choices=[('main', 'Main account'), ('backup', 'Backup account')], default='main', max_length=6),
        ),
    ]
