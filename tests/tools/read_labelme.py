"labelme 7.9.1: `read_label_file` opens every file, with its image"
import json, sys
from pathlib import Path
from labelme._label_file import read_label_file, read_label_file_image_path

res = {}
for f in sorted(Path(sys.argv[1]).rglob('*.json')):
    d = read_label_file(filename=str(f))
    image = read_label_file_image_path(filename=str(f))
    assert Path(image).is_file() or (f.parent/image).is_file(), f
    shapes = d['shapes'] if isinstance(d, dict) else d.shapes
    res[f.stem] = [[s['label'], *sum(s['points'], []), int(s['flags'].get('difficult', False))] for s in shapes]
print(json.dumps(res))
