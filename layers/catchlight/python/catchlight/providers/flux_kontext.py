"""The provider `flux-kontext`: Flux Kontext API of kie.ai."""

from datetime import timedelta

from catchlight.models import ImageKind
from catchlight.providers.kie import DOWNLOAD_URL_LIFETIME, KIE_IMAGE_HOSTS, KieProvider

# Origin images are on hosts of Black Forest Labs, which makes the model, or of fal, which runs it. Only one of the
# Azure accounts of Black Forest Labs is listed: every customer of Azure can create names that look like the others.
FLUX_IMAGE_HOSTS = ("*.bfl.ai", "bfldeliveryprod.blob.core.windows.net", "fal.media", "*.fal.media")

PROVIDER = KieProvider(
    id="flux-kontext",
    base_url="https://api.kie.ai",
    record_info_path="/api/v1/flux/kontext/record-info",
    submit_paths={"generate": "/api/v1/flux/kontext/generate"},
    image_hosts=(*KIE_IMAGE_HOSTS, *FLUX_IMAGE_HOSTS),
    url_lifetimes={
        ImageKind.ORIGIN: timedelta(minutes=10),  # documented for callbacks and records
        ImageKind.RESULT: timedelta(days=14),  # documented for records
    },
    download_url_lifetime=DOWNLOAD_URL_LIFETIME,
)
