"""All five data sets in turn; each search first tries the best settings of those before it.

python experiments/tune_all.py                                                                    # demo scale
python experiments/tune_all.py --data-root coco=/data/coco --data-root voc2007=/data/VOCdevkit    # those that are there
"""

from tune_coco import search as coco
from tune_nuswide import search as nuswide
from tune_vg500 import search as vg500
from tune_voc2007 import search as voc2007
from tune_voc2012 import search as voc2012

from sadcl import main

if __name__ == "__main__":
    main([coco, voc2007, voc2012, nuswide, vg500])
