"""Downloads images from providers' URLs and validates them."""
