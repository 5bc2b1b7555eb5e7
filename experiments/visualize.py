"""What has a checkpoint learned? The paper's Fig. 4, 5 and 6, each with a number that checks it.

The best trial of the last study in runs/, of a certain study, or any checkpoint (key or best.pt):

python experiments/visualize.py
python experiments/visualize.py --study coco14-tune --data-root /data/coco --format pdf
python experiments/visualize.py --checkpoint KEY --baseline KEY
"""

import argparse

from sadcl.console import console, guarded, print_text, progress_bar
from sadcl.study.process import large_pages


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    add = parser.add_argument
    add("--storage", default="runs", metavar="ROOT", help="root of tables and checkpoints")
    add("--study", metavar="NAME", help="draw its best trial (default: the study started last)")
    add("--checkpoint", metavar="KEY", help="key of a trial, or path of a best.pt")
    add("--baseline", metavar="KEY", help="pooled network to compare (default: the study's own)")
    add("--data-root", metavar="DIR", help="where the data set is (default: drawn scenes)")
    add("--output", default="figures", metavar="DIR", help="folder for fig4, fig5 and fig6")
    add("--format", choices=("png", "svg", "pdf"), default="png", help="of the figures")
    add("--photos", type=int, default=4, metavar="N", help="number of test images in Fig. 5")
    return parser.parse_args()


def main() -> None:
    flags = _flags()
    with guarded(), large_pages():
        from sadcl.figures import draw_paper
        from sadcl.results import checkpoints

        key = flags.checkpoint or checkpoints.best_trial_key(flags.storage, flags.study)
        baseline = flags.baseline or checkpoints.baseline_trial_key(flags.storage, key)
        console.print(f"checkpoint: {key}, baseline: {baseline or 'none'}", highlight=False)
        baseline_uri = checkpoints.find_checkpoint(flags.storage, baseline) if baseline else None
        with progress_bar("reading the data") as show:
            sentences = draw_paper(
                checkpoints.find_checkpoint(flags.storage, key),
                flags.output,
                baseline=baseline_uri,
                data_root=flags.data_root,
                ending=flags.format,
                photos=flags.photos,
                show_progress=show,
            )
        for sentence in sentences:
            print_text(sentence)


if __name__ == "__main__":
    main()
