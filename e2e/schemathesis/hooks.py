"""What the document can't say in JSON Schema, said to schemathesis: how to make images and keys, and what a machine allows."""

import json
import os
import urllib.request
from datetime import datetime, timezone
from email.utils import format_datetime
from pathlib import Path

import schemathesis
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "shared" / "sniff" / "fixtures"
SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/gif": ".gif", "image/webp": ".webp"}

# No schema describes the bytes of an image. These are real ones, as encoders wrote them.
IMAGES = {kind: [file.read_bytes() for file in sorted(FIXTURES.glob(f"*{suffix}"))] for kind, suffix in SUFFIXES.items()}
ALL_IMAGES = [image for images in IMAGES.values() for image in images]

schemathesis.openapi.format("binary", st.sampled_from(ALL_IMAGES))
# Dates in headers, as RFC 9110 writes them.
schemathesis.openapi.format(
    "http-date",
    st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2099, 12, 31)).map(
        lambda date: format_datetime(date.replace(microsecond=0, tzinfo=timezone.utc), usegmt=True)
    ),
)
for kind, images in IMAGES.items():
    schemathesis.openapi.media_type(kind, st.sampled_from(images))


@schemathesis.deserializer(*SUFFIXES)
def image(context, response):
    """An image is a string of bytes; that it is one that was stored is looked at by other tests."""
    return response.content.decode("latin-1")


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """The largest capacity depends on the memory of the worker's machine, which says how much that is."""
    request = urllib.request.Request(os.environ["SCHEMA_SYSTEM"] + "/api/cache")
    if token := os.environ.get("SCHEMA_TOKEN"):
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request) as answer:
        most = json.load(answer)["max_capacity_mb"]
    for shape in raw_schema["components"]["schemas"]["CacheConfigChange"]["anyOf"]:
        shape["properties"]["capacity_mb"]["maximum"] = most


def is_short(key):
    """A pattern counts characters; a key has up to 255 bytes."""
    return not isinstance(key, str) or len(key.encode("utf-8", "surrogatepass")) <= 255


@schemathesis.hook
def filter_path_parameters(context, path_parameters):
    return is_short((path_parameters or {}).get("key"))


@schemathesis.hook
def filter_body(context, body):
    """In a form all values are text: a key that is a number or a truth value in Python is a proper key when it is sent.
    And names of parts are words: control characters break the head of a part."""
    if not isinstance(body, dict) or "file" not in body:
        return True
    if not all(isinstance(name, str) and name.isprintable() for name in body):
        return False
    return isinstance(body.get("key", ""), str) and is_short(body.get("key"))
