"label-studio-sdk 2.1.2: its own converter to YOLO with oriented boxes"
import json, sys, tempfile
from pathlib import Path
from label_studio_sdk.converter import Converter
from PIL import Image

root = Path(sys.argv[1]); file = next(root.rglob('*.json')); tasks = json.loads(file.read_text())
labels = sorted({n for t in tasks for a in t["annotations"] for r in a["result"] for n in r["value"][r["type"]]})
values = ''.join(f'<Label value="{n}"/>' for n in labels)
control = ('<View><Image name="image" value="$image"/>'
           f'<RectangleLabels name="label" toName="image">{values}</RectangleLabels></View>')
with tempfile.TemporaryDirectory() as d:
    c = Converter(config=control, project_dir=d, download_resources=False)
    c.convert_to_yolo(str(file), d, is_dir=False, is_obb=True)
    names = (Path(d)/'classes.txt').read_text().split('\n'); res = {}
    for o in sorted((Path(d)/'labels').glob('*.txt')):
        image = next(p for p in root.rglob('*') if p.stem==o.stem.split('__')[-1] and p.suffix in ('.png','.jpg'))
        size = Image.open(image).size
        rows = [l.split() for l in o.read_text().splitlines()]
        res[image.stem] = [[names[int(t[0])], *(float(v)*size[i%2] for i,v in enumerate(t[1:9])), 0] for t in rows]
print(json.dumps(res))
