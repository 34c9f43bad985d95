"ICDAR: text with eight whole pixels"
import numpy as np, pytest
from PIL import Image
from rotnb.data.doctor.report import doctor
from format_checks import CHECKS, LabelSample

TEXT = '\ufeff10,10,50,12,50,30,10,28,Genaxis, Theatre\r\n120,20,150,25,145,55,115,50,###\r\n-4,60,20,60,20,80,-4,80,le 5\r\n'
ROWS = [([10,10,50,12,50,30,10,28],'text',0), ([120,20,150,25,145,55,115,50],'text',1), ([-4,60,20,60,20,80,-4,80],'text',0)]
SAMPLE = LabelSample('icdar', 'gt/gt_a.txt', TEXT, ROWS, TEXT.replace('150,25', '150,x'), ':2', '\r\n', tolerance=.75)

@pytest.mark.parametrize('check', CHECKS)
def test_icdar(tmp_path, check): check(tmp_path, SAMPLE)

def test_whole_pixels_are_no_shares_of_the_size(tmp_path):
    "Labels drawn on the image as it is stored, where EXIF shows it turned: the doctor compares them in pixels"
    turned,rng = Image.Exif(),np.random.default_rng(0)
    turned[0x112] = 6
    (tmp_path/'images').mkdir(); (tmp_path/'gt').mkdir()
    for k in range(8):
        pixels,lines = np.zeros((60,120), np.uint8),[]
        for x,y in ((4,4), (4,34), (30,4)):                                 # where both ways up have pixels
            x,y = x+rng.integers(4),y+rng.integers(4)
            pixels[y:y+12,x:x+20] = 255
            lines.append(f'{x},{y},{x+20},{y},{x+20},{y+12},{x},{y+12},word\n')
        Image.fromarray(pixels).save(tmp_path/f'images/{k}.png', exif=turned)
        (tmp_path/f'gt/gt_{k}.txt').write_text(''.join(lines))
    votes = doctor(tmp_path, 'icdar').votes.set_index('reading')
    assert votes.boxes['labels fit the stored image']>=20 and votes.share['labels fit the stored image']>.9

def test_the_doctor_finds_the_image_behind_the_prefix(tmp_path):
    (tmp_path/'images').mkdir(); (tmp_path/'gt').mkdir()
    Image.new('RGB', (200,100)).save(tmp_path/'images/a.png')
    (tmp_path/'gt/gt_a.txt').write_text(TEXT.replace('10,10,50', 'x,10,50'))
    found = doctor(tmp_path, 'icdar', images=False).to_dataframe('parse')
    assert found.image.map(lambda o: o.rpartition('/')[2]).tolist()==['a.png']
