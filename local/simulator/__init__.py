"""Simulates the image generation services on this machine, with the real formats of requests, callbacks and polls."""

from local.simulator.scenarios import ACEDATA, APIKLEY, FLUX_KONTEXT, KIE_MARKET, NANOBANANA, SCENARIOS, Scenario
from local.simulator.services import ORIGIN_LIFETIME_SECONDS
from local.simulator.simulator import Simulator
from local.simulator.tasks import Delivery, SimulatedTask

__all__ = [
    "ACEDATA",
    "APIKLEY",
    "FLUX_KONTEXT",
    "KIE_MARKET",
    "NANOBANANA",
    "ORIGIN_LIFETIME_SECONDS",
    "SCENARIOS",
    "Delivery",
    "Scenario",
    "SimulatedTask",
    "Simulator",
]
