"""What has a checkpoint learned? The paper's Fig. 4, 5 and 6, each with a number that says whether what it shows is so.

python experiments/visualize.py                                        # the best trial of the last study in runs/
python experiments/visualize.py --study coco14-tune --data-root /data/coco --format pdf
python experiments/visualize.py --checkpoint KEY --baseline KEY        # or paths of a best.pt
"""

import argparse

from sadcl.console import console, guarded, progress_bar


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument(
        "--storage",
        default="runs",
        metavar="ROOT",
        help="of tables and checkpoints (default: runs)",
    )
    parser.add_argument(
        "--study", metavar="NAME", help="whose best trial is shown (default: the one started last)"
    )
    parser.add_argument("--checkpoint", metavar="KEY", help="of a trial, or the path of a best.pt")
    parser.add_argument(
        "--baseline", metavar="KEY", help="a pooled network beside it (default: the study's own)"
    )
    parser.add_argument(
        "--data-root", metavar="DIR", help="where the data lies (default: embedded scenes)"
    )
    parser.add_argument(
        "--output",
        default="figures",
        metavar="DIR",
        help="where fig4, fig5 and fig6 go (default: figures)",
    )
    parser.add_argument(
        "--format", choices=("png", "svg", "pdf"), default="png", help="default: png"
    )
    parser.add_argument(
        "--photos", type=int, default=4, metavar="N", help="test images in Fig. 5 (default: 4)"
    )
    given = parser.parse_args()
    with guarded():
        from sadcl.figures import draw_paper
        from sadcl.results import checkpoints

        chosen = given.checkpoint or checkpoints.best_trial_key(given.storage, given.study)
        baseline = given.baseline or checkpoints.baseline_trial_key(given.storage, chosen)
        console.print(f"checkpoint: {chosen}, baseline: {baseline or 'none'}", highlight=False)
        with progress_bar("reading the data") as show:
            said = draw_paper(
                checkpoints.find_checkpoint(given.storage, chosen),
                given.output,
                baseline=checkpoints.find_checkpoint(given.storage, baseline) if baseline else None,
                data_root=given.data_root,
                ending=given.format,
                photos=given.photos,
                show_progress=show,
            )
        for sentence in said:
            console.print(sentence, highlight=False)


if __name__ == "__main__":
    main()
