"CSV: one row for each box"
import pytest
from format_checks import CHECKS, LabelSample

TEXT = ('image,name,difficult,note,x1,y1,x2,y2,x3,y3,x4,y4\r\na.png,ship,0,"a ""note"",\nof two lines",10,10,50.5,10,50.5,30,10,30\r\n'
        'a.png,storage tank,1,,120,20,150.0,25,145,55,115,50\r\na.png,ship,0,,-4,60,20,60,20,80,-4,80\r\n')
ROWS = [([10,10,50.5,10,50.5,30,10,30],'ship',0), ([120,20,150,25,145,55,115,50],'storage tank',1), ([-4,60,20,60,20,80,-4,80],'ship',0)]
EMPTY = 'image,name,difficult,note,x1,y1,x2,y2,x3,y3,x4,y4\r\na.png,,,,,,,,,,,\r\n'
CORNERS = LabelSample('csv', 'annotations/all.csv', TEXT, ROWS, TEXT.replace('150.0', 'x'), ': row 2', EMPTY, other_name='car')

HBOXES = 'image,name,xmin,ymin,xmax,ymax\na.png,ship,10,10,50,30\na.png,=sum,120,20,150,55\n'.replace('=sum', "'=sum")
UPRIGHT = LabelSample('csv', 'a.csv', HBOXES, [([10,10,50,10,50,30,10,30],'ship',0), ([120,20,150,20,150,55,120,55],'=sum',0)],
                      HBOXES.replace('150', 'x'), ': row 2', 'image,name,xmin,ymin,xmax,ymax\na.png,,,,,\n', other_name='=1+1')

@pytest.mark.parametrize('check', CHECKS)
def test_corners(tmp_path, check): check(tmp_path, CORNERS)

@pytest.mark.parametrize('check', [check for check in CHECKS if check.__name__!='edited'])
def test_upright_boxes(tmp_path, check): check(tmp_path, UPRIGHT)
