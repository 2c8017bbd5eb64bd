"""Layout *hloc*: an image root, lists of names, and query lists with intrinsics; all may be globs.

``image_list`` lists the database images (default: every photo under the root that is no query);
``queries`` is a list such as ``queries/*_time_queries_with_intrinsics.txt``.
"""

from __future__ import annotations

from loc.config import SceneConfig
from loc.errors import DataError
from loc.layouts.assemble import (
    given_intrinsics,
    image_root,
    make_scene,
    open_photos,
    photos_in,
    read_query_list,
    refuse_unused,
    require_on_disk,
    warn_of_both,
)
from loc.layouts.lists import read_entries
from loc.types import Scene


def load(config: SceneConfig) -> Scene:
    """Read the scene; a name that is listed both as database image and as query is a
    query, with a warning.

    Raises:
        ConfigError: an option of another layout is set, or ``images`` is not.
        DataError: a list is wrong, none of its images exists, or there is no image at all.
    """
    refuse_unused(config, "model", "version")
    root = image_root(config)
    queries = read_query_list(config)
    query_names = {entry.name for entry in queries}
    if config.image_list is not None:
        listed = read_entries(config.image_list)
        warn_of_both([entry.name for entry in listed], query_names)
        db_names = [entry.name for entry in listed if entry.name not in query_names]
        require_on_disk(db_names, root, source=f"the list {config.image_list}")
    else:
        listed = []
        without = [] if config.masks is None else [config.masks]
        db_names = [name for name in photos_in(root, without=without) if name not in query_names]
    require_on_disk(query_names, root, source=f"the list {config.queries}")
    if not db_names and not query_names:
        raise DataError(f"there is no image in {config.image_list or root}", "list a name per line")
    return make_scene(
        config,
        db=open_photos({name: root / name for name in db_names}),
        queries=open_photos({name: root / name for name in sorted(query_names)}),
        given=given_intrinsics(config, [*listed, *queries]),
    )
