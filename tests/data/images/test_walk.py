"Every real folder is visited once, whatever links lead to it"
import time
from rotnb.data.images.walk import walk_files
from text_sets import folder

def test_each_real_folder_is_visited_once_behind_links(tmp_path):
    for k in range(40):
        d = folder(tmp_path/'far', {f'{k}/{k}.png':(2,2)})/f'{k}'
        for o in 'ab'[:2 if k<39 else 0]: (d/o).symlink_to(tmp_path/f'far/{k+1}')
    (tmp_path/'set').mkdir(); (tmp_path/'set/pics').symlink_to(tmp_path/'far/0')
    t = time.perf_counter(); files = walk_files(tmp_path/'set'); assert time.perf_counter()-t<10 and len(files)==40
    for s in ('train','val'): (tmp_path/f'two/{s}').mkdir(parents=True); (tmp_path/f'two/{s}/images').symlink_to(tmp_path/'far/39')
    assert len(walk_files(tmp_path/'two'))==2                                    # two splits may share their images
