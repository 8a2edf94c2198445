"""The window's doors; their live halves are in `calls.console.routing`."""

from __future__ import annotations

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from calls.console import views

app_name = "console"
urlpatterns = [
    path("", views.live, name="live"),
    path("calls/", views.call_list, name="calls"),
    path("calls/<uuid:public_id>/", views.call, name="call"),
    path("login/", LoginView.as_view(template_name="console/login.html", redirect_authenticated_user=True), name="login"),
    path("logout/", LogoutView.as_view(next_page="console:login"), name="logout"),
]
