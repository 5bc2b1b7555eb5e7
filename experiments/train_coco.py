"""Train SADCL on MS-COCO with the published settings, on one worker or on many.

python experiments/train_coco.py --workers 2                         # drawn scenes, demo scale
python experiments/train_coco.py --data-root /data/coco --workers 8  # full scale
python experiments/train_coco.py --data-root /data/coco --workers 2:8  # nodes that come and go
"""

from sadcl import recipes
from sadcl.cli.experiment import main_train

if __name__ == "__main__":
    main_train(recipes.coco14("released"), recipes.demo(), name="coco14-train")
