"FiftyOne 1.22.1: its COCO importer, outlines as polylines (no database is needed for it)"
import json, sys
from pathlib import Path
from fiftyone.utils.coco import COCODetectionDatasetImporter

root = Path(sys.argv[1]); res = {}
with COCODetectionDatasetImporter(data_path=str(root/'images'), labels_path=str(next(root.rglob('*.json'))), label_types='segmentations', use_polylines=True) as data:
    for path,meta,label in data:
        lines = (label.get('segmentations') if isinstance(label, dict) else label).polylines
        res[Path(path).stem] = [[p.label, *[v for x,y in p.points[0][:4] for v in (x*meta.width,y*meta.height)], int(p['ignore'])] for p in lines]
print(json.dumps(res))
