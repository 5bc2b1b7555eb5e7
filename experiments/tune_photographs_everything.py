"""Does a search on stored features choose what would be best with the whole network training?

The six best settings of the search with a frozen backbone are trained again with everything
training. The report says how well the cheap ranking predicted the real one.

python experiments/tune_photographs_everything.py                                # drawn scenes
python experiments/tune_photographs_everything.py --data-root photos
python experiments/tune_photographs_everything.py --data-root /data/coco --set data.name=coco17
"""

from tune_photographs import search as frozen

from sadcl import Search, main, recipes

search = Search(
    name="photographs-everything",
    question="Does a search on stored features choose what is best with everything training?",
    base=frozen.base,
    demo=frozen.demo,
    space=frozen.space,
    n_trials=16,
    n_demo_trials=8,
    confirm_top=6,
    confirm_seeds=(1001, 1002, 1003),
    confirm_with=recipes.EVERYTHING,
)

if __name__ == "__main__":
    main(search)
