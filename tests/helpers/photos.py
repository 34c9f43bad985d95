"Images with one bright box, as files, photographs that EXIF turns and GeoTIFFs, and their labels as the tools write them"
import json, warnings
import cv2, numpy as np, pytest
from PIL import Image
from rotnb.geometry.fit import with_heading
from rotnb.data.images.orient import turn_pixels

def rio(): return pytest.importorskip('rasterio', reason="rasterio is not installed: pip install 'rotnb[geo]'")

BOX = np.array([[70,20],[110,30],[105,50],[65,40]], float)                    # in the displayed image of 160 x 100 px
def shown(): # bright where the box is
    a = np.full((100,160,3), 20, np.uint8); cv2.fillPoly(a, [np.rint(BOX).astype(int)], (230,230,230))
    return a

def photo(file, o): # stored so that EXIF shows it as `shown`
    back = {6:8, 8:6}.get(o, o); exif = Image.Exif(); exif[0x112] = o
    Image.fromarray(np.ascontiguousarray(turn_pixels(shown(), back))).save(file, exif=exif,
        **({'quality':98} if file.suffix=='.jpg' else {}))

def annotation(inside, size_wh, name='a.jpg'):
    w,h = size_wh
    return f'<annotation><filename>{name}</filename><size><width>{w}</width><height>{h}</height></size>{inside}</annotation>'

def labels(form, quad, size_wh): # file name and text as the tools write them
    (w,h),quad = size_wh,np.asarray(quad, float)
    if form=='labelme':
        shape = dict(label='ship', points=quad.tolist(), group_id=None, shape_type='polygon', flags={})
        whole = dict(version='6.3.1', flags={}, imagePath='a.jpg', imageData=None, imageHeight=h, imageWidth=w, shapes=[shape])
        return 'a.json',json.dumps(whole)
    if form=='coco':
        image,category = dict(id=1, width=w, height=h, file_name='a.jpg'),dict(id=1, name='ship')
        box = dict(id=1, image_id=1, category_id=1, bbox=[0,0,1,1], segmentation=[quad.ravel().tolist()], iscrowd=0)
        return 'a.json',json.dumps(dict(images=[image], categories=[category], annotations=[box]))
    if form=='cvat':
        polygon = f'<polygon label="ship" points="{";".join(f"{x},{y}" for x,y in quad)}"/>'
        return 'a.xml',f'<annotations><image id="0" name="a.jpg" width="{w}" height="{h}">{polygon}</image></annotations>'
    if form=='fair1m':
        points = ''.join(f'<point>{x},{y}</point>' for x,y in quad[[0,1,2,3,0]])
        return 'a.xml',(f'<annotation><source><filename>a.jpg</filename></source><size><width>{w}</width><height>{h}</height></size>'
            '<objects><object><possibleresult><name>ship</name></possibleresult>'
            f'<points>{points}</points></object></objects></annotation>')
    if form=='label_studio':
        value = dict(points=(quad/size_wh*100).tolist(), polygonlabels=['ship'])
        result = dict(id='r', type='polygonlabels', original_width=w, original_height=h, value=value)
        return 'a.json',json.dumps([dict(id=1, data=dict(image='a.jpg'), annotations=[dict(result=[result])])])
    rbox = with_heading(quad[None])[0][0]
    numbers = ''.join(f'<{key}>{value:.8f}</{key}>' for key,value in zip('cx cy w h angle'.split(), rbox))
    return 'a.xml',annotation(f'<object><type>robndbox</type><name>ship</name><robndbox>{numbers}</robndbox></object>', size_wh, 'a')

def quiet(f, *a, **kw):
    with warnings.catch_warnings(record=True) as w: warnings.simplefilter('always'); return f(*a, **kw),' '.join(str(o.message) for o in w)
def same(a, b, tol=.1): return min(np.abs(np.roll(o, i, 0)-b).max() for o in (a,a[::-1]) for i in range(4))<tol
def bright(image, q): # mean inside the box, and around it
    m = np.zeros(image.shape[:2], np.uint8); cv2.fillPoly(m, [np.rint(q).astype(int)], 1); m = cv2.erode(m, np.ones((5,5), np.uint8))
    return image[m>0].mean(),image[cv2.dilate(m, np.ones((13,13), np.uint8))==0].mean()

def image(folder, name, wh=(160,100)): folder.mkdir(parents=True, exist_ok=True); Image.new('RGB', wh, 'grey').save(folder/name)
