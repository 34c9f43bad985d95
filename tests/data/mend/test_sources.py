"Where labels are saved: the file of an image that has none yet, and the images of one split"
import numpy as np, pytest
from PIL import Image
from rotnb.data.formats.format import FORMATS
from rotnb.data.formats.table import read_format
from rotnb.data.labels.records import Annot
from rotnb.data.mend.sources import label_sources

SHIP = [10.,10,40,10,40,20,10,20],'ship',0
BEGUN = [name for name,fmt in FORMATS.items() if fmt.write and fmt.editor and fmt.redraws]

def a_set(root, name, stems='ab'):
    (root/'images').mkdir(parents=True)
    for stem in stems: Image.new('RGB', (100,60)).save(root/f'images/{stem}.png')
    annots = [Annot(root/f'images/{stem}.png', np.reshape(SHIP[0], (1,4,2)), ['ship'], np.zeros(1, int)) for stem in stems]
    FORMATS[name].write(annots, root, '', ['ship','car'])
    return root

@pytest.mark.parametrize('name', BEGUN)
def test_an_image_without_labels_gets_a_file_of_its_own(tmp_path, name):
    "What is begun is what the writer makes of an empty image, and nothing of other files of the set (YOLO writes its names too)"
    source = label_sources(a_set(tmp_path/'set', name), format=name)[1]
    if source.called is not None: pytest.skip('one file for all images')
    written = source.file.read_bytes()
    FORMATS[name].write([Annot(source.image, np.zeros((0,4,2)), [], np.zeros(0, int))], tmp_path/'none', '', ['ship','car'])
    empty, = [file.read_bytes() for file in (tmp_path/'none').rglob(source.file.name)]
    source.file.unlink()
    source = label_sources(tmp_path/'set', format=name)[1]
    assert not source.file.exists() and source.load()==(source.editor.decode(empty), '')
    text = 'text' if name=='icdar' else 'ship'
    source.save(source.read(), [((SHIP[0],text,0),None)])
    assert len(source.file.read_bytes().splitlines())<=len(written.splitlines())+3
    assert [annot.names for annot in read_format(tmp_path/'set', format=name)]==[[text]]*2

@pytest.mark.parametrize('name', [name for name in BEGUN if name not in ('hrsid',)])
@pytest.mark.parametrize('how', ['lists','folders'])
def test_only_images_of_the_split(tmp_path, name, how):
    "Whether lists or folders of images tell the splits, and whether there is one label file or many"
    root = a_set(tmp_path, name, 'abcd')
    for split,stems in (('train','abc'), ('val','d')):
        if how=='lists': (root/f'{split}.txt').write_text(''.join(f'{stem}.png\n' for stem in stems))
        else:
            if FORMATS[name].exts==('.txt',) and getattr(FORMATS[name], 'dirs', ()): pytest.skip('labels lie in such folders too')
            (root/f'images/{split}').mkdir()
            for stem in stems: (root/f'images/{stem}.png').rename(root/f'images/{split}/{stem}.png')
    for split in ('train','val'):
        read = [annot.image for annot in read_format(root, split, name)]
        assert [source.image for source in label_sources(root, split, name)]==read
    assert len(read)==1
