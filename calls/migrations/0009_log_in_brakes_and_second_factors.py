"""Failed log-ins are counted, and people may use an authenticator app. Adds two tables. Going back: drops them, and log-ins ask for no code."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('calls', '0008_erasures_and_their_reasons'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='LogInBrake',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('key', models.CharField(max_length=64, unique=True)),
                ('tries', models.PositiveIntegerField(default=0)),
                ('since', models.DateTimeField()),
                ('blocked_until', models.DateTimeField(blank=True, null=True)),
                ('forgotten_at', models.DateTimeField(db_index=True)),
            ],
        ),
        migrations.CreateModel(
            name='SecondFactor',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('secret', models.CharField(editable=False, max_length=200)),
                ('last_step', models.PositiveBigIntegerField(default=0, editable=False)),
                ('confirmed_at', models.DateTimeField(blank=True, null=True, verbose_name='in use since')),
                ('user', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, related_name='second_factor', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'verbose_name': 'authenticator app',
                'ordering': ['id'],
            },
        ),
    ]
