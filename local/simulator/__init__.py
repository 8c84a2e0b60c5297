"""Simulates the image generation services on this machine, with the real formats of requests, callbacks and polls."""

from local.simulator.pictures import Picture, PictureFormat
from local.simulator.scenarios import (
    ACEDATA,
    APIKLEY,
    FLUX_KONTEXT,
    KIE_MARKET,
    NANOBANANA,
    PROVIDERS,
    SCENARIOS,
    Scenario,
    UnknownScenarioError,
)
from local.simulator.services import ORIGIN_LIFETIME_SECONDS, TaskExistsError
from local.simulator.simulator import Simulator
from local.simulator.tasks import Delivery, ImageRequest, Poll, SimulatedImage, SimulatedTask

__all__ = [
    "ACEDATA",
    "APIKLEY",
    "FLUX_KONTEXT",
    "KIE_MARKET",
    "NANOBANANA",
    "ORIGIN_LIFETIME_SECONDS",
    "PROVIDERS",
    "SCENARIOS",
    "Delivery",
    "ImageRequest",
    "Picture",
    "PictureFormat",
    "Poll",
    "Scenario",
    "SimulatedImage",
    "SimulatedTask",
    "Simulator",
    "TaskExistsError",
    "UnknownScenarioError",
]
