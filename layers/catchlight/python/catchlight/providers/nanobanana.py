"""NanoBanana API, nanobananaapi.ai."""

from datetime import timedelta

from catchlight.models import ImageKind
from catchlight.providers.kie import KIE_IMAGE_HOSTS, KieProvider

PROVIDER = KieProvider(
    id="nanobanana",
    base_url="https://api.nanobananaapi.ai",
    record_info_path="/api/v1/nanobanana/record-info",
    submit_paths={name: f"/api/v1/nanobanana/{name}" for name in ("generate", "generate-2", "generate-pro")},
    image_hosts=KIE_IMAGE_HOSTS,
    url_lifetimes={
        # Records have the field, with null in recorded ones: an image there is taken for as short-lived as Flux's.
        ImageKind.ORIGIN: timedelta(minutes=10),
        # No figure is documented. Sister APIs of the same house say 24 hours or 14 days: the shorter is the safe one.
        ImageKind.RESULT: timedelta(hours=24),
    },
)
