"""Aachen Day-Night, v1 or v1.1: from the unpacked data set to the file that its benchmark takes.

    python pipelines/aachen.py --dataset datasets/aachen --outputs outputs/aachen

Map: covisible images of the reference model are matched, and triangulated from its known poses.
Queries: matched with the images that retrieval finds, or with those of a list of pairs.
"""

import argparse
from pathlib import Path

import loc
from loc.stages.submission import submission_of

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--dataset", type=Path, required=True, help="root: images/, 3D-models/, queries/")
parser.add_argument("--outputs", type=Path, required=True, help="run folder; run again to resume")
parser.add_argument("--features", default="sift", help="extractor or preset (loc plugins)")
parser.add_argument("--matcher", default="nearest", help="matcher or preset")
parser.add_argument("--globals", default="vlad", help="global extractor for retrieval")
parser.add_argument("--num-covis", type=int, default=20, help="map pairs per image")
parser.add_argument("--num-loc", type=int, default=50, help="retrieved images per query")
parser.add_argument("--pairs", type=Path, help="query pairs from a list instead: 'query database' per line")
parser.add_argument("--queries", type=Path, help="other query list, e.g. that of the night alone")
parser.add_argument("--device", default="auto")
args = parser.parse_args()

query_pairs = {"use": "retrieval", "for": "query", "k": args.num_loc}
if args.pairs is not None:
    query_pairs = {"use": "list", "for": "query", "path": str(args.pairs)}
config = loc.load_config(
    {
        "scene": {"layout": "aachen", "images": args.dataset, "queries": args.queries},
        "features": args.features,
        "matcher": args.matcher,
        "globals": args.globals,
        "pairs": [{"use": "covisibility", "for": "map", "k": args.num_covis}, query_pairs],
        "map": {"mode": "triangulate"},
        "evaluate": {"thresholds": [[0.25, 2], [0.5, 5], [5, 10]]},
    }
)
run = loc.run(config, args.outputs, runtime=loc.Runtime(device=args.device))

submission = submission_of(run.scene, run.poses, run.bundle, names="basename")
submission.write(args.outputs / f"Aachen_eval_{args.features}.txt")
for group, count in submission.groups.items():
    print(f"{group}: {count.submitted} of {count.queries} queries have a pose")
print(f"report: {run.report.folder / 'index.html'}")
