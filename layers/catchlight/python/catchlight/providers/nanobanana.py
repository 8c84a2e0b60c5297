"""The provider `nanobanana`: NanoBanana API, nanobananaapi.ai."""

from datetime import timedelta

from catchlight.models import ImageKind
from catchlight.providers.kie import KIE_IMAGE_HOSTS, KieProvider

PROVIDER = KieProvider(
    id="nanobanana",
    base_url="https://api.nanobananaapi.ai",
    record_info_path="/api/v1/nanobanana/record-info",
    submit_paths={name: f"/api/v1/nanobanana/{name}" for name in ("generate", "generate-2", "generate-pro")},
    credits_path="/api/v1/common/credit",
    image_hosts=KIE_IMAGE_HOSTS,
    url_lifetimes={
        # `originImageUrl` is null in recorded answers; a URL in it is assumed to expire as early as Flux Kontext's.
        ImageKind.ORIGIN: timedelta(minutes=10),
        # No lifetime is documented. Other APIs of the same vendor document 24 hours or 14 days; the shorter is safe.
        ImageKind.RESULT: timedelta(hours=24),
    },
)
