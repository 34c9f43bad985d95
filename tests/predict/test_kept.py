"Results that were kept and read again: the same boxes, classes and images that were found, in every format that is read"
import shutil
import numpy as np, pytest
from PIL import Image
from rotnb.all import Annot, ArgumentError, eval_map, load_weights, predict_folder, read_results
from rotnb.data.formats.coco import write_coco
from rotnb.data.synth.scenes import make_scene
from rotnb.predict.kept import KeptResults, match_names

FORMATS = ['dota','csv','coco','yolo_obb']

@pytest.fixture(scope='module')
def found(tmp_path_factory):
    "Two scenes and an empty one, what a predictor finds in them, and the folder of `predict_folder`"
    root = tmp_path_factory.mktemp('kept')
    (root/'set').mkdir()
    annots = []
    for i in range(2):
        image,quads,names,hard = make_scene(i, 192)
        Image.fromarray(image).save(root/f'set/s{i}.png')
        annots.append(Annot(root/f'set/s{i}.png', quads, names, hard.astype(int)))
    Image.new('RGB', (192,160)).save(root/'set/s2.png')
    annots.append(Annot(root/'set/s2.png', np.zeros((0,4,2)), [], np.zeros(0, int)))
    predictor = load_weights('rotated_fcos_tiny_synth')
    predict_folder(predictor, root/'set', root/'out', FORMATS, progress=False, score_thr=.1)
    return root,annots,predictor

@pytest.mark.parametrize('name', ['','Task1.zip','results.csv','results.json','labels'])
def test_the_same_again(found, name):
    "What is measured of files is what is measured of the predictor; the images may be some of those, in another order"
    root,annots,predictor = found
    some = annots[::-1][:2]
    acc = read_results(root/'out'/name, some, predictor.vocab).accumulate(some)
    want = predictor.accumulate(some, progress=False)
    for ours,theirs,annot in zip(acc.images, want.images, some):
        keep = theirs.scores>=.1
        order,other = np.argsort(-ours.scores, kind='stable'),np.argsort(-theirs.scores[keep], kind='stable')
        assert len(order)==keep.sum() and (annot.image.stem=='s2' or len(order)>3)
        names = np.array([*acc.vocab])[ours.labels[order]],np.array([*want.vocab])[theirs.labels[keep][other]]
        assert (names[0]==names[1]).all() and np.abs(ours.scores[order]-theirs.scores[keep][other]).max(initial=0)<1e-4
        assert np.abs(ours.boxes[order,:2]-theirs.boxes[keep][other,:2]).max(initial=0)<.02

def test_ids_of_the_truth(found, tmp_path):
    "COCO's results for a ground truth with ids of its own need no names"
    root,annots,predictor = found
    write_coco(annots, tmp_path/'truth.json', sorted({name for annot in annots for name in annot.names}|{*predictor.vocab})[::-1])
    predict_folder(predictor, root/'set', tmp_path/'out', 'coco', progress=False, score_thr=.1, image_ids=tmp_path/'truth.json')
    kept = read_results(tmp_path/'out', annots, image_ids=tmp_path/'truth.json')
    other = read_results(root/'out/results.csv', annots)
    assert abs(eval_map(kept, annots).map-eval_map(other, annots).map)<1e-6 and eval_map(other, annots).map>.2

def test_names_of_yolos_numbers(found, tmp_path):
    "They lie beside the labels, are read from there, and never replace others"
    root,annots,predictor = found
    named,by_number = (read_results(root/'out/labels', annots, vocab).accumulate(annots) for vocab in (None,predictor.vocab))
    assert (root/'out/classes.txt').read_text().splitlines()==[*predictor.vocab]
    assert [*named.vocab]==[*by_number.vocab] and all((a.labels==b.labels).all() for a,b in zip(named.images, by_number.images))
    (tmp_path/'classes.txt').write_text('ship\nplane\n')
    with pytest.raises(FileExistsError, match='has not the classes of the detector'):
        predict_folder(predictor, root/'set', tmp_path, 'yolo_obb', progress=False)
    assert (tmp_path/'classes.txt').read_text()=='ship\nplane\n' and not (tmp_path/'labels').exists()

def test_what_cannot_be_read(found, tmp_path):
    root,annots,predictor = found
    for text,said in (('{}','holds no detections that can be read'), ('[{"image_id":1}]','holds no detections: KeyError'),
                      ('[{"image_id":"z","category_id":99,"bbox":[0,0,1,1],"score":1}]','class 99 is unknown'),
                      ('[1]','holds no detections')):
        (tmp_path/'r.json').write_text(text)
        with pytest.raises(ValueError, match=said): read_results(tmp_path/'r.json', annots, predictor.vocab)
    (tmp_path/'r.json').write_text('[{"image_id":"z","category_id":1,"bbox":[0,0,1,1],"score":1}]')
    with pytest.raises(ValueError, match="called like 'the image of id z'"):
        read_results(tmp_path/'r.json', annots, predictor.vocab).accumulate(annots)
    shutil.copytree(root/'out/labels', tmp_path/'labels')
    with pytest.raises(ValueError, match='classes by number'): read_results(tmp_path/'labels', annots)
    with pytest.raises(ValueError, match='looked for Task1.zip'): read_results(root/'set', annots)
    (tmp_path/'t').mkdir()
    (tmp_path/'t/Task1_ship.txt').write_text('s0 0.5 1 2 3\n')
    with pytest.raises(ValueError, match='Task1_?.*:1: expected|:1: expected'): read_results(tmp_path/'t', annots)
    (tmp_path/'t/Task1_ship.txt').write_text('elsewhere 0.5 1 2 9 2 9 6 1 6\n')
    with pytest.raises(ValueError, match="called like 'elsewhere'"): read_results(tmp_path/'t', annots).accumulate(annots)
    (tmp_path/'t/Task1_ship.txt').write_text('s0 0.5 nan 2 9 2 9 6 1 6\n')
    with pytest.raises(ValueError, match='not finite'): read_results(tmp_path/'t', annots)
    with pytest.raises(ArgumentError, match='whole images'): KeptResults({}, ['a']).detect_rows([np.zeros((4,4,3))], print, 0.)

def test_names_of_images():
    both = ['/d/train/a.png','/d/val/a.png']
    assert match_names(both, ['val/a.png','train/a.png'])==['train/a.png','val/a.png']
    assert match_names(both[:1], ['a'])==['a'] and match_names(['b.tif'], [])==[None]
    with pytest.raises(ValueError, match='may be'): match_names(['/d/a.png'], ['x/a.png','y/a.png'])
