"""All five data sets in turn: each search first tries the best settings of those before it.

At demo scale, then at full scale for the data sets that have a folder:

python experiments/tune_all.py
python experiments/tune_all.py --data-root coco=/data/coco --data-root voc2007=/data/VOCdevkit
"""

from tune_coco import search as coco
from tune_nuswide import search as nuswide
from tune_vg500 import search as vg500
from tune_voc2007 import search as voc2007
from tune_voc2012 import search as voc2012

from sadcl import main

if __name__ == "__main__":
    main([coco, voc2007, voc2012, nuswide, vg500])
