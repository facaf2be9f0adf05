"""A file of captions as COCO's are."""

import json
from pathlib import Path


def captions(path: Path, images: int = 50, each: int = 3) -> Path:
    """A file as COCO's are, in an order that means nothing."""
    rows = [
        {"image_id": 7 * i, "id": 1000 + each * i + j, "caption": f"  image {i}\n caption {j} "}
        for i in range(images)
        for j in range(each)
    ]
    path.write_text(json.dumps({"info": {}, "images": [], "annotations": rows[::-1]}))
    return path
