"""The window's doors; their live halves are in `calls.console.routing`."""

from __future__ import annotations

from django.contrib.auth.views import LogoutView
from django.urls import path

from calls.console import changes, messages, people, sound, trail_page, views
from calls.console.log_in import LogIn, LogInCode
from calls.console.own_log_in import second_factor_page

app_name = "console"
urlpatterns = [
    path("", views.live, name="live"),
    path("calls/", views.call_list, name="calls"),
    path("calls/<uuid:public_id>/", views.call, name="call"),
    path("calls/<uuid:public_id>/messages/", messages.of_call, name="call-messages"),
    path("calls/<uuid:public_id>/recordings/<str:sid>.wav", sound.recording, name="recording"),
    path("calls/<uuid:public_id>/called-back/", changes.callback_done, name="callback-done"),
    path("calls/<uuid:public_id>/claimed/", changes.callback_claimed, name="callback-claimed"),
    path("voicemail/", views.voicemail_list, name="voicemail"),
    path("callbacks/", views.callback_list, name="callbacks"),
    path("messages/", messages.of_nobody, name="messages"),
    path("messages/<int:pk>/", messages.one, name="message"),
    path("messages/<int:pk>.json", messages.whole, name="message-whole"),
    path("messages/<int:pk>/again/", changes.message_again, name="message-again"),
    path("trail/", trail_page.trail_list, name="trail"),
    path("people/", people.people, name="people"),
    path("people/found/", people.found, name="person-found"),
    path("people/export/", people.exported, name="person-export"),
    path("people/erase/", people.erased, name="person-erase"),
    path("login/", LogIn.as_view(), name="login"),
    path("login/code/", LogInCode.as_view(), name="log-in-code"),
    path("second-factor/", second_factor_page, name="second-factor"),
    path("logout/", LogoutView.as_view(next_page="console:login"), name="logout"),
]
