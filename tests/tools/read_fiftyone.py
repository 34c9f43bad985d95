"FiftyOne 1.22.1: its COCO importer, outlines as polylines (no database is needed for it)"
import json, sys
from pathlib import Path
from fiftyone.utils.coco import COCODetectionDatasetImporter

root = Path(sys.argv[1]); res = {}
paths = dict(data_path=str(root/'images'), labels_path=str(next(root.rglob('*.json'))))
with COCODetectionDatasetImporter(**paths, label_types='segmentations', use_polylines=True) as data:
    for path,meta,label in data:
        lines = (label.get('segmentations') if isinstance(label, dict) else label).polylines
        corners = [[v for x,y in p.points[0][:4] for v in (x*meta.width,y*meta.height)] for p in lines]
        res[Path(path).stem] = [[p.label, *c, int(p['ignore'])] for p,c in zip(lines, corners)]
print(json.dumps(res))
